// dasan_model_*: loading a model and asking what it is.
#include "engine/model/model.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "engine/api/arguments.h"
#include "engine/api/guard.h"
#include "engine/api/handles.h"
#include "engine/session/engine.h"
#include "engine/text/tokenizer.h"

namespace dasan::api {
namespace {

LoadOptions load_options(const dasan_model_params* given) {
  const auto params = read_struct(given, "params");
  check_flags(params.flags, DASAN_MODEL_VOCAB_ONLY, "params.flags");
  LoadOptions options;
  switch (params.device_kind) {
    case DASAN_DEVICE_AUTO:
    case DASAN_DEVICE_CPU:
      if (params.device_ordinal != 0)
        throw Error(Status::kNotFound, "device_ordinal " + std::to_string(params.device_ordinal) +
                                           ": there is one CPU device, ordinal 0");
      break;
    case DASAN_DEVICE_CUDA:
      if (params.device_ordinal < 0)
        bad_argument("device_ordinal is " + std::to_string(params.device_ordinal) +
                     ", expected 0 or more");
      options.cuda_device = params.device_ordinal;
      break;
    default:
      bad_argument("device_kind is " + std::to_string(params.device_kind) +
                   ", expected a DASAN_DEVICE_* value");
  }
  options.vocab_only = (params.flags & DASAN_MODEL_VOCAB_ONLY) != 0;
  if (params.n_threads > 1024)
    bad_argument("n_threads is " + std::to_string(params.n_threads) + ", expected at most 1024");
  options.n_threads = static_cast<int32_t>(params.n_threads);
  if (params.cpu_isa != nullptr) {
    options.isa = params.cpu_isa;
  } else if (const char* isa = std::getenv("DASAN_CPU_ISA"); isa != nullptr) {
    options.isa = isa;
  }
  for (const dasan_override& o : array_argument(params.overrides, params.n_overrides, "overrides"))
    options.overrides.emplace_back(text_argument(o.key, "overrides.key"),
                                   text_argument(o.value, "overrides.value"));
  if (params.on_progress != nullptr)
    options.on_progress = [fn = params.on_progress, user = params.user](float fraction) {
      return fn(user, fraction) == 0;
    };
  return options;
}

dasan_model_info describe(const Model& model) {
  const ModelSpec& spec = model.spec();
  dasan_model_info info{};
  info.n_layers = static_cast<uint32_t>(spec.n_layers);
  info.n_embd = static_cast<uint32_t>(spec.d_model);
  if (!spec.layers.empty()) {
    info.n_heads = static_cast<uint32_t>(spec.layers.front().n_heads);
    info.n_kv_heads = static_cast<uint32_t>(spec.layers.front().n_kv_heads);
    info.head_dim = static_cast<uint32_t>(spec.layers.front().head_dim);
  }
  info.n_vocab = static_cast<uint32_t>(spec.n_vocab);
  info.n_ctx_train = static_cast<uint32_t>(spec.n_ctx_train);
  info.token_bos = info.token_eos = info.token_eot = info.token_pad = -1;
  if (model.has_tokenizer()) {
    const Tokenizer& tokenizer = model.tokenizer();
    info.token_bos = tokenizer.bos();
    info.token_eos = tokenizer.eos();
    info.token_eot = tokenizer.eot();
    info.token_pad = tokenizer.pad();
  }
  if (info.token_eos < 0 && !model.eos_ids().empty()) info.token_eos = model.eos_ids().front();
  info.n_params = model.n_params();
  info.file_bytes = model.file_bytes();
  info.weight_bytes = model.weight_bytes();
  info.kv_bytes_per_token = Engine::kv_bytes_per_token(model);
  info.fingerprint = model.fingerprint();
  write_field(info.architecture, spec.architecture);
  write_field(info.quantization, model.quantization());
  write_field(info.device, model.has_weights() ? std::string(model.backend().name()) : "none");
  write_field(info.name, spec.name);
  return info;
}

dasan_str borrow(const std::string& s) { return {s.data(), s.size()}; }

const Model& checked(const dasan_model* m) { return *not_null(m, "model").model; }

}  // namespace
}  // namespace dasan::api

using namespace dasan::api;

extern "C" {

dasan_status dasan_model_load(dasan_model** out, const char* path,
                              const dasan_model_params* params) {
  return guard([&] {
    not_null(out, "out") = nullptr;
    not_null(path, "path");
    auto handle = std::make_unique<dasan_model>();
    handle->model = dasan::Model::load(path, load_options(params));
    *out = handle.release();
  });
}

void dasan_model_release(dasan_model* m) { delete m; }

dasan_status dasan_model_get_info(const dasan_model* m, dasan_model_info* out) {
  return guard([&] { write_struct(out, "out", describe(checked(m))); });
}

size_t dasan_model_metadata_count(const dasan_model* m) {
  return m == nullptr ? 0 : m->model->metadata().size();
}

dasan_status dasan_model_metadata_at(const dasan_model* m, size_t index, dasan_str* key,
                                     dasan_str* value) {
  return guard([&] {
    const auto& entries = checked(m).metadata();
    if (index >= entries.size())
      throw dasan::Error(dasan::Status::kNotFound, "metadata index " + std::to_string(index) +
                                                       ": there are " +
                                                       std::to_string(entries.size()));
    if (key != nullptr) *key = borrow(entries[index].first);
    if (value != nullptr) *value = borrow(entries[index].second);
  });
}

dasan_status dasan_model_get_metadata(const dasan_model* m, const char* key, dasan_str* value) {
  return guard([&] {
    const auto& entries = checked(m).metadata();
    const std::string_view wanted = text_argument(key, DASAN_NTS, "key");
    const auto found = std::find_if(entries.begin(), entries.end(),
                                    [&](const auto& entry) { return entry.first == wanted; });
    if (found == entries.end())
      throw dasan::Error(dasan::Status::kNotFound,
                         "metadata key '" + std::string(wanted) + "' is absent");
    not_null(value, "value") = borrow(found->second);
  });
}

size_t dasan_model_tensor_count(const dasan_model* m) {
  return m == nullptr ? 0 : m->model->tensors().size();
}

dasan_status dasan_model_tensor_at(const dasan_model* m, size_t index, dasan_tensor_info* out) {
  return guard([&] {
    const auto& tensors = checked(m).tensors();
    if (index >= tensors.size())
      throw dasan::Error(dasan::Status::kNotFound, "tensor index " + std::to_string(index) +
                                                       ": there are " +
                                                       std::to_string(tensors.size()));
    const dasan::TensorInfo& tensor = tensors[index];
    dasan_tensor_info info{};
    info.n_dims = static_cast<uint32_t>(std::min<size_t>(tensor.shape.size(), 4));
    std::copy_n(tensor.shape.begin(), info.n_dims, info.shape);
    info.size_bytes = tensor.size_bytes;
    info.name = borrow(tensor.name);
    info.dtype = borrow(tensor.dtype);
    write_struct(out, "out", info);
  });
}

dasan_status dasan_model_eos_tokens(const dasan_model* m, int32_t* tokens, size_t cap,
                                    size_t* len) {
  return guard(
      [&] { write_array(std::span<const int32_t>(checked(m).eos_ids()), tokens, cap, len); });
}

}  // extern "C"
