// The tokenizer part of a GGUF file's metadata.
#pragma once

#include "engine/text/tokenizer.h"

namespace dasan {

class GgufFile;

// Views into `file`, which must outlive the result. Ids outside the vocabulary count as absent.
GgufVocab read_gguf_vocab(const GgufFile& file);

}  // namespace dasan
