// Loading order: files -> configuration -> family -> spec -> tokenizer -> shapes -> weights.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>

#include "engine/io/gguf.h"
#include "engine/io/json_text.h"
#include "engine/io/mapped_file.h"
#include "engine/io/safetensors.h"
#include "engine/model/arch.h"
#include "engine/model/config.h"
#include "engine/model/gguf_vocab.h"
#include "engine/model/hf_folder.h"
#include "engine/model/model.h"
#include "engine/model/tensor_source.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "kernels/core/status.h"
#include "kernels/quant/dequantize.h"

namespace dasan {
namespace {

namespace fs = std::filesystem;
using kernels::ConstMatView;
using kernels::DType;

constexpr uint64_t kShownArray = 8;  // elements of a metadata array that are listed

// A vision model's checkpoint wraps its text model: "model.language_model.layers.0.x" is layer 0.
std::string without_wrapper(std::string name) {
  for (const auto& [wrapped, plain] :
       {std::pair<std::string_view, std::string_view>{"model.language_model.", "model."},
        {"language_model.model.", "model."},
        {"language_model.lm_head.", "lm_head."}})
    if (name.starts_with(wrapped)) return name.replace(0, wrapped.size(), plain);
  return name;
}

uint64_t hash_bytes(const void* data, size_t size, uint64_t state) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; i++) state = (state ^ bytes[i]) * 0x100000001B3u;
  return state;
}

}  // namespace

class ModelLoader {
 public:
  ModelLoader(const std::string& path, const LoadOptions& options)
      : path_(path), options_(options) {}

  std::shared_ptr<const Model> load() {
    std::error_code ignored;
    if (fs::is_directory(path_, ignored)) {
      open_folder();
    } else {
      open_gguf();
    }
    if (options_.cuda_device >= 0) {
      model_->backend_ = kernels::make_cuda_backend(options_.cuda_device);
    } else {
      model_->backend_ = kernels::make_cpu_backend(kernels::choose_cpu_isa(options_.isa));
    }
    if (options_.vocab_only && tensors_.all().empty()) {
      describe_vocabulary();
    } else {
      resolve();
    }
    name_model();
    parse_chat_template();
    if (!options_.vocab_only) load_weights();
    return model_;
  }

 private:
  const MappedFile& map(const std::string& path) {
    model_->files_.push_back(std::make_unique<MappedFile>(path));
    const MappedFile& file = *model_->files_.back();
    model_->file_bytes_ += file.bytes().size();
    return file;
  }

  void open_gguf() {
    kind_ = FileKind::kGguf;
    const MappedFile& first = map(path_);
    if (!first.bytes().empty() &&
        std::string_view(reinterpret_cast<const char*>(first.bytes().data()), 1) == "{")
      throw Error(Status::kFormat,
                  path_ + ": not a GGUF file (give the folder of a Hugging Face checkpoint)");
    gguf_.push_back(std::make_unique<GgufFile>(first.bytes(), path_));
    add_gguf_tensors(*gguf_.front(), first);
    open_split();
    const GgufFile& main = *gguf_.front();
    config_ = make_gguf_config(main, options_.overrides);
    const auto architecture = main.get_string("general.architecture");
    if (!architecture) throw Error(Status::kFormat, path_ + ": 'general.architecture' is absent");
    architecture_ = *architecture;
    for (const auto& [key, value] : main.metadata())
      model_->metadata_.emplace_back(key, main.to_json(value, kShownArray));
    open_gguf_text(main);
  }

  // "name-00001-of-00003.gguf" is followed by its other parts.
  void open_split() {
    const GgufFile& main = *gguf_.front();
    const int64_t count = main.get_int("split.count").value_or(1);
    if (count <= 1) return;
    const int64_t number = main.get_int("split.no").value_or(0);
    const std::string tail = fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
    if (number != 0 || count > 9999 || !path_.ends_with(tail))
      throw Error(Status::kFormat,
                  fmt::format("{}: part {} of {}, expected the first, named ...{}", path_,
                              number + 1, count, fmt::format("-00001-of-{:05}.gguf", count)));
    const std::string stem = path_.substr(0, path_.size() - tail.size());
    for (int64_t i = 1; i < count; i++) {
      const std::string part = fmt::format("{}-{:05}-of-{:05}.gguf", stem, i + 1, count);
      const MappedFile& file = map(part);
      gguf_.push_back(std::make_unique<GgufFile>(file.bytes(), part));
      if (gguf_.back()->get_int("split.no").value_or(-1) != i)
        throw Error(Status::kFormat, fmt::format("{}: 'split.no' is not {}", part, i));
      add_gguf_tensors(*gguf_.back(), file);
    }
    if (const auto total = main.get_int("split.tensors.count");
        total && *total != static_cast<int64_t>(tensors_.all().size()))
      throw Error(Status::kFormat, fmt::format("{}: {} tensors in all parts, expected {}", path_,
                                               tensors_.all().size(), *total));
  }

  void add_gguf_tensors(const GgufFile& gguf, const MappedFile& file) {
    for (const GgufTensor& t : gguf.tensors())
      tensors_.add({std::string(t.name), t.dtype, t.type_name, t.shape, t.data, &file});
  }

  void open_gguf_text(const GgufFile& g) {
    const GgufVocab vocab = read_gguf_vocab(g);
    add_eos({vocab.eos, vocab.eot, vocab.eom});
    if (vocab.tokens.empty()) {
      model_->tokenizer_error_ =
          path_ + ": the file holds no tokenizer ('tokenizer.ggml.tokens' is absent)";
    } else {
      make_tokenizer([&] { return Tokenizer::from_gguf(vocab); });
    }
    if (const auto source = g.get_string("tokenizer.chat_template"))
      model_->chat_template_source_ = *source;
  }

  void open_folder() {
    kind_ = FileKind::kHuggingFace;
    const HfFolder folder = read_hf_folder(path_, options_.vocab_only);
    if (!folder.config.empty()) {
      config_ = make_hf_config(folder.config, path_ + "/config.json", options_.overrides);
      const auto type = config_->text("model_type");
      if (!type) throw Error(Status::kFormat, path_ + "/config.json: 'model_type' is absent");
      architecture_ = *type;
    } else if (!folder.weight_files.empty()) {
      throw Error(Status::kNotFound, path_ + ": the folder holds no config.json");
    }
    const bool wrapped = config_ && config_->has("text_config");
    for (const std::string& name : folder.weight_files) {
      const MappedFile& file = map(path_ + "/" + name);
      for (SafeTensor& t : parse_safetensors(file.bytes(), path_ + "/" + name))
        tensors_.add({wrapped ? without_wrapper(std::move(t.name)) : std::move(t.name), t.dtype,
                      std::move(t.type_name), std::move(t.shape), t.data, &file});
    }
    model_->metadata_ = folder.metadata;
    model_->generation_ = folder.generation;
    add_eos(folder.eos_ids);
    model_->chat_template_source_ = folder.chat_template;
    if (folder.tokenizer.empty()) {
      model_->tokenizer_error_ = path_ + ": the folder holds no tokenizer.json";
    } else {
      make_tokenizer([&] { return Tokenizer::from_hf(folder.tokenizer, folder.tokenizer_config); });
    }
  }

  void add_eos(const std::vector<int32_t>& ids) {
    for (const int32_t id : ids)
      if (id >= 0 &&
          std::find(model_->eos_ids_.begin(), model_->eos_ids_.end(), id) == model_->eos_ids_.end())
        model_->eos_ids_.push_back(id);
  }

  // A model without a usable tokenizer still runs on token ids; the reason is kept for who asks.
  template <class Make>
  void make_tokenizer(Make&& make) {
    try {
      model_->tokenizer_ = make();
      add_eos({model_->tokenizer_->eos(), model_->tokenizer_->eot()});
    } catch (const Error& error) {
      if (error.status() != Status::kUnsupported) throw;
      model_->tokenizer_error_ = error.message();
    }
  }

  // A vocabulary alone: there is nothing to run, so any architecture will do.
  void describe_vocabulary() {
    ModelSpec& spec = model_->spec_;
    spec.architecture = architecture_;
    if (model_->tokenizer_) spec.n_vocab = model_->tokenizer_->vocab_size();
    if (config_) config_->check_overrides_used();
  }

  void name_model() {
    if (!model_->spec_.name.empty()) return;
    const fs::path p(path_);
    model_->spec_.name =
        p.has_filename() ? p.filename().string() : p.parent_path().filename().string();
  }

  void parse_chat_template() {
    if (model_->chat_template_source_.empty()) return;
    try {
      model_->chat_template_ = ChatTemplate::parse(model_->chat_template_source_);
    } catch (const Error& error) {
      if (error.status() == Status::kOutOfMemory) throw;
      model_->chat_template_error_ = error.message();
    }
  }

  void resolve() {
    family_ = &find_family(kind_, architecture_);
    model_->spec_ = resolve_spec(*family_, kind_, *config_, tensors_);
    for (const SourceTensor& t : tensors_.all()) {
      model_->tensors_.push_back({t.name, t.type_name, t.shape, t.data.size()});
      uint64_t n = 1;
      for (const int64_t d : t.shape) n *= static_cast<uint64_t>(d);
      model_->n_params_ += n;
      fingerprint_ = hash_bytes(t.name.data(), t.name.size(), fingerprint_);
      fingerprint_ = hash_bytes(t.shape.data(), t.shape.size() * sizeof(int64_t), fingerprint_);
      const size_t sample = std::min<size_t>(t.data.size(), 64);
      fingerprint_ = hash_bytes(t.data.data(), sample, fingerprint_);
      fingerprint_ = hash_bytes(t.data.data() + t.data.size() - sample, sample, fingerprint_);
    }
    hash_spec(model_->spec_);
    model_->fingerprint_ = fingerprint_;
    plan_weights();
  }

  // Everything that decides what the weights compute: configuration values may be overridden.
  void hash_spec(const ModelSpec& spec) {
    const auto hash = [&](const auto& values) {
      fingerprint_ = hash_bytes(values, sizeof values, fingerprint_);
    };
    for (const RopeTable& r : spec.rope_tables) {
      fingerprint_ = hash_bytes(r.inv_freq.data(), r.inv_freq.size() * sizeof(float), fingerprint_);
      const float kind[] = {r.attention_factor, r.interleaved ? 1.0f : 0.0f};
      hash(kind);
    }
    const float factors[] = {spec.norm_eps, spec.embedding_multiplier, spec.residual_multiplier,
                             spec.logits_multiplier, spec.attention_scale};
    hash(factors);
    for (const LayerSpec& l : spec.layers) {
      const int32_t layer[] = {l.n_heads,
                               l.n_kv_heads,
                               l.head_dim,
                               l.n_experts,
                               l.n_experts_used,
                               l.norm_topk ? 1 : 0,
                               l.window,
                               l.rope_table,
                               static_cast<int32_t>(l.residual),
                               static_cast<int32_t>(l.activation)};
      hash(layer);
    }
  }

  // What load_weights() will hold, from the shapes alone.
  void plan_weights() {
    const TensorNames& names = tensor_names(*family_, kind_);
    const std::string embedding = std::string(names.embedding) + ".weight";
    for (const SourceTensor& t : tensors_.all()) {
      if (t.shape.size() < 2 || t.shape.size() > 3 || !t.dtype || *t.dtype == DType::kI32) continue;
      const auto packed = [&] {
        const size_t n = t.shape.size();
        const uint64_t matrices = n == 3 ? static_cast<uint64_t>(t.shape[0]) : 1;
        return matrices * model_->backend_->packed_bytes(*t.dtype,
                                                         static_cast<int32_t>(t.shape[n - 2]),
                                                         static_cast<int32_t>(t.shape[n - 1]));
      };
      if (t.name == embedding) {
        model_->weight_bytes_ += t.data.size();
        if (model_->spec_.tied_embeddings) model_->weight_bytes_ += packed();
      } else {
        model_->weight_bytes_ += packed();
      }
    }
  }

  // ---- weights ----------------------------------------------------------------------------------

  const SourceTensor& need(const std::string& name, std::vector<int64_t> shape) {
    const SourceTensor* t = tensors_.find(name);
    if (t == nullptr) throw Error(Status::kFormat, name + " is absent");
    if (t->shape != shape)
      throw Error(Status::kFormat, fmt::format("{}: shape ({}), expected ({})", name,
                                               fmt::join(t->shape, ", "), fmt::join(shape, ", ")));
    if (!t->dtype || *t->dtype == DType::kI32)
      throw Error(Status::kUnsupported,
                  fmt::format("{}: type {} is not supported", name, t->type_name));
    return *t;
  }

  FloatVector vector(const std::string& name, int64_t n) {
    const SourceTensor& t = need(name, {n});
    std::vector<float> out(static_cast<size_t>(n));
    kernels::dequantize_row(*t.dtype, t.data.data(), out.data(), n);
    return {*model_->backend_, out};
  }

  static ConstMatView view_of(const SourceTensor& t) {
    return {t.data.data(), *t.dtype, static_cast<int32_t>(t.shape[0]),
            static_cast<int32_t>(t.shape[1]), kernels::row_bytes(*t.dtype, t.shape[1])};
  }

  // One weight: a matrix, or the matrices of all experts in one tensor or in one each.
  struct Job {
    std::vector<const SourceTensor*> tensors;
    PackedPtr* target;
    size_t size_bytes() const {
      size_t sum = 0;
      for (const SourceTensor* t : tensors) sum += t->data.size();
      return sum;
    }
    std::vector<ConstMatView> views() const {
      std::vector<ConstMatView> all;
      for (const SourceTensor* t : tensors) {
        const size_t n = t->shape.size();
        const int64_t matrices = n == 3 ? t->shape[0] : 1, rows = t->shape[n - 2];
        const size_t row = kernels::row_bytes(*t->dtype, t->shape[n - 1]);
        for (int64_t m = 0; m < matrices; m++)
          all.push_back({t->data.data() + static_cast<size_t>(m * rows) * row, *t->dtype,
                         static_cast<int32_t>(rows), static_cast<int32_t>(t->shape[n - 1]), row});
      }
      return all;
    }
  };

  void linear(Linear& out, std::string_view role, int32_t layer, int64_t n_out, int64_t n_in) {
    const TensorNames& names = tensor_names(*family_, kind_);
    jobs_.push_back({{&need(layer_tensor(names, layer, role, ".weight"), {n_out, n_in})}, &out.w});
    const std::string bias = layer_tensor(names, layer, role, ".bias");
    if (tensors_.has(bias)) out.bias = vector(bias, n_out);
  }

  void experts(PackedPtr& out, std::string_view role, int32_t layer, int64_t n_experts,
               int64_t n_out, int64_t n_in) {
    const TensorNames& names = tensor_names(*family_, kind_);
    Job job{{}, &out};
    if (role.find("{}") == role.npos) {
      job.tensors.push_back(&need(expert_tensor(names, layer, role, 0), {n_experts, n_out, n_in}));
    } else {
      for (int32_t e = 0; e < n_experts; e++) {
        job.tensors.push_back(&need(expert_tensor(names, layer, role, e), {n_out, n_in}));
        const SourceTensor &first = *job.tensors.front(), &last = *job.tensors.back();
        if (*last.dtype != *first.dtype)
          throw Error(Status::kUnsupported,
                      fmt::format("{}: type {}, expected {} as {}", last.name, last.type_name,
                                  first.type_name, first.name));
      }
    }
    jobs_.push_back(std::move(job));
  }

  void collect_layer(int32_t i) {
    const ModelSpec& spec = model_->spec_;
    const LayerSpec& l = spec.layers[static_cast<size_t>(i)];
    LayerWeights& w = model_->weights_.layers[static_cast<size_t>(i)];
    const TensorNames& names = tensor_names(*family_, kind_);
    const int64_t d = spec.d_model, q = int64_t{l.n_heads} * l.head_dim,
                  kv = int64_t{l.n_kv_heads} * l.head_dim;
    linear(w.q, names.q, i, q, d);
    linear(w.k, names.k, i, kv, d);
    linear(w.v, names.v, i, kv, d);
    linear(w.o, names.o, i, d, q);
    if (l.n_experts > 0) {
      jobs_.push_back(
          {{&need(layer_tensor(names, i, names.router, ".weight"), {l.n_experts, d})}, &w.router});
      experts(w.expert_gate, names.expert_gate, i, l.n_experts, l.d_ff, d);
      experts(w.expert_up, names.expert_up, i, l.n_experts, l.d_ff, d);
      experts(w.expert_down, names.expert_down, i, l.n_experts, d, l.d_ff);
    } else {
      linear(w.gate, names.gate, i, l.d_ff, d);
      linear(w.up, names.up, i, l.d_ff, d);
      linear(w.down, names.down, i, d, l.d_ff);
    }
    const auto norm = [&](std::string_view role, int64_t n) {
      return vector(layer_tensor(names, i, role, ".weight"), n);
    };
    if (l.residual != ResidualKind::kPost) {
      w.attn_norm = norm(names.attn_norm, d);
      w.ffn_norm = norm(names.ffn_norm, d);
    }
    if (l.residual != ResidualKind::kPre) {
      w.post_attn_norm = norm(names.post_attn_norm, d);
      w.post_ffn_norm = norm(names.post_ffn_norm, d);
    }
    if (l.qk_norm) {
      w.q_norm = norm(names.q_norm, l.head_dim);
      w.k_norm = norm(names.k_norm, l.head_dim);
    }
  }

  void load_weights() {
    const ModelSpec& spec = model_->spec_;
    const TensorNames& names = tensor_names(*family_, kind_);
    ModelWeights& w = model_->weights_;
    const std::string embedding = std::string(names.embedding) + ".weight";
    const SourceTensor& table = need(embedding, {spec.n_vocab, spec.d_model});
    w.embedding = model_->backend_->pack_embedding(view_of(table));
    const SourceTensor& head = spec.tied_embeddings ? table
                                                    : need(std::string(names.head) + ".weight",
                                                           {spec.n_vocab, spec.d_model});
    jobs_.push_back({{&head}, &w.head});
    w.output_norm = vector(std::string(names.output_norm) + ".weight", spec.d_model);
    w.layers.resize(static_cast<size_t>(spec.n_layers));
    for (int32_t i = 0; i < spec.n_layers; i++) collect_layer(i);
    tensors_.check_all_used(spec.n_layers);
    pack_all();
    model_->loaded_ = true;
  }

  // Each thread takes the next largest tensor; the caller's thread also reports progress.
  void pack_all() {
    std::stable_sort(jobs_.begin(), jobs_.end(),
                     [](const Job& a, const Job& b) { return a.size_bytes() > b.size_bytes(); });
    uint64_t total = 0, packed = 0;
    for (const Job& job : jobs_) {
      total += job.size_bytes();
      for (const ConstMatView& view : job.views())
        packed += model_->backend_->packed_bytes(view.dtype, view.rows, view.cols);
    }
    model_->backend_->expect_weights(packed, jobs_.size());
    std::atomic<size_t> next{0};
    std::atomic<uint64_t> done{0};
    std::atomic<bool> stop{false};
    std::mutex failure_mutex;
    std::exception_ptr failure;
    const auto work = [&](bool reports) {
      try {
        for (size_t i = next++; i < jobs_.size() && !stop; i = next++) {
          const Job& job = jobs_[i];
          *job.target = model_->backend_->pack_experts(job.views());
          for (const SourceTensor* t : job.tensors) t->file->release(t->data);
          done += job.size_bytes();
          if (reports && options_.on_progress &&
              !options_.on_progress(static_cast<float>(done) /
                                    static_cast<float>(std::max<uint64_t>(total, 1)) * 0.999f))
            throw Error(Status::kCancelled, "the load was cancelled");
        }
      } catch (...) {
        const std::lock_guard lock(failure_mutex);
        if (!failure) failure = std::current_exception();
        stop = true;
      }
    };
    const int32_t threads =
        options_.n_threads > 0
            ? options_.n_threads
            : static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
    std::vector<std::thread> team;
    try {
      for (int32_t t = 1; t < std::min<int32_t>(threads, static_cast<int32_t>(jobs_.size())); t++)
        team.emplace_back(work, false);
    } catch (...) {
      // Fewer threads than asked for: the load takes longer, and that is all.
    }
    work(true);
    for (std::thread& t : team) t.join();
    if (failure) std::rethrow_exception(failure);
    if (options_.on_progress && !options_.on_progress(1.0f))
      throw Error(Status::kCancelled, "the load was cancelled");
  }

  const std::string path_;
  const LoadOptions& options_;
  std::shared_ptr<Model> model_{new Model};
  FileKind kind_ = FileKind::kGguf;
  std::vector<std::unique_ptr<GgufFile>> gguf_;
  std::unique_ptr<Config> config_;
  std::string architecture_;
  TensorSource tensors_;
  const Family* family_ = nullptr;
  std::vector<Job> jobs_;
  uint64_t fingerprint_ = 0xCBF29CE484222325u;
};

std::shared_ptr<const Model> Model::load(const std::string& path, const LoadOptions& options) {
  return ModelLoader(path, options).load();
}

Model::~Model() = default;

const ModelWeights& Model::weights() const {
  if (!loaded_)
    throw Error(Status::kState, "the model was loaded without its weights (VOCAB_ONLY)");
  return weights_;
}

const Tokenizer& Model::tokenizer() const {
  if (!tokenizer_) throw Error(Status::kUnsupported, tokenizer_error_);
  return *tokenizer_;
}

const ChatTemplate& Model::chat_template() const {
  if (chat_template_) return *chat_template_;
  if (!chat_template_error_.empty()) throw Error(Status::kFormat, chat_template_error_);
  throw Error(Status::kNotFound, "the model has no chat template");
}

std::string Model::quantization() const {
  std::map<std::string, uint64_t> bytes;
  for (const TensorInfo& t : tensors_)
    if (t.shape.size() > 1) bytes[t.dtype] += t.size_bytes;
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "F32" : most->first;
}

}  // namespace dasan
