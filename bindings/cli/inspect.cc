// `dasan inspect`: what a model file holds, and the memory it will need.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "common.h"

namespace dasan::cli {
namespace {

struct Options {
  ModelOptions model;
  EngineOptions engine;
  bool json = false, tensors = false, metadata = false;
};

struct Listed {
  std::string name, dtype, shape;
  uint64_t size_bytes;
};

std::vector<Listed> list_tensors(const Model& model) {
  std::vector<Listed> out;
  for (size_t i = 0; i < dasan_model_tensor_count(model.get()); i++) {
    dasan_tensor_info info = DASAN_TENSOR_INFO_INIT;
    check(dasan_model_tensor_at(model.get(), i, &info));
    out.push_back({std::string(detail::view(info.name)), std::string(detail::view(info.dtype)),
                   fmt::format("[{}]", fmt::join(info.shape, info.shape + info.n_dims, ",")),
                   info.size_bytes});
  }
  return out;
}

void run(const Options& options) {
  const Model model = load_model(options.model, DASAN_MODEL_VOCAB_ONLY);
  const dasan_model_info info = model.info();
  const dasan_engine_params params = engine_params(options.engine, options.model);
  dasan_plan plan = DASAN_PLAN_INIT;
  const bool has_weights = info.n_layers > 0;  // else a vocabulary alone: nothing to run
  if (has_weights) check(dasan_plan_memory(model.get(), &params, &plan));
  const std::vector<Listed> tensors = list_tensors(model);
  std::map<std::string, std::pair<size_t, uint64_t>> by_type;  // count, bytes
  for (const Listed& t : tensors) {
    by_type[t.dtype].first++;
    by_type[t.dtype].second += t.size_bytes;
  }
  const size_t n_metadata = dasan_model_metadata_count(model.get());

  if (options.json) {
    std::string out = fmt::format(
        "{{\"name\":{},\"architecture\":{},\"quantization\":{},\"parameters\":{},\"file_bytes\":{},"
        "\"layers\":{},\"embedding\":{},\"heads\":{},\"kv_heads\":{},\"head_dim\":{},"
        "\"vocabulary\":{},\"context\":{},\"memory\":{{\"weights\":{},\"kv\":{},\"workspace\":{},"
        "\"total\":{},\"context\":{},\"kv_tokens\":{}}}",
        json_string(info.name), json_string(info.architecture), json_string(info.quantization),
        info.n_params, info.file_bytes, info.n_layers, info.n_embd, info.n_heads, info.n_kv_heads,
        info.head_dim, info.n_vocab, info.n_ctx_train, plan.weight_bytes, plan.kv_bytes,
        plan.workspace_bytes, plan.total_bytes, plan.max_context, plan.kv_tokens);
    out += ",\"metadata\":{";
    for (size_t i = 0; i < n_metadata; i++) {
      dasan_str key, value;
      check(dasan_model_metadata_at(model.get(), i, &key, &value));
      out += fmt::format("{}{}:{}", i == 0 ? "" : ",", json_string(detail::view(key)),
                         detail::view(value));
    }
    out += "},\"tensors\":[";
    for (size_t i = 0; i < tensors.size(); i++)
      out += fmt::format("{}{{\"name\":{},\"dtype\":\"{}\",\"shape\":{},\"bytes\":{}}}",
                         i == 0 ? "" : ",", json_string(tensors[i].name), tensors[i].dtype,
                         tensors[i].shape, tensors[i].size_bytes);
    write_out(out + "]}\n");
    return;
  }

  std::string out;
  const auto line = [&](std::string_view label, std::string_view value) {
    out += fmt::format("{:<16}{}\n", label, value);
  };
  line("name", info.name);
  line("architecture", info.architecture);
  if (has_weights) {
    line("parameters", fmt::format("{:.2f} M", static_cast<double>(info.n_params) / 1e6));
    line("file", fmt::format("{}, mostly {}", human_bytes(info.file_bytes), info.quantization));
    line("layers", fmt::format("{}", info.n_layers));
    line("shape",
         fmt::format("embedding {}, {} heads of {}, {} KV heads, vocabulary {}", info.n_embd,
                     info.n_heads, info.head_dim, info.n_kv_heads, info.n_vocab));
    line("context", fmt::format("{} tokens", info.n_ctx_train));
    line("memory", fmt::format("{} = weights {} + KV {} ({} tokens) + workspace {}",
                               human_bytes(plan.total_bytes), human_bytes(plan.weight_bytes),
                               human_bytes(plan.kv_bytes), plan.kv_tokens,
                               human_bytes(plan.workspace_bytes)));
  } else {
    line("vocabulary", fmt::format("{} tokens, and no weights", info.n_vocab));
  }
  for (const auto& [dtype, count] : by_type)
    line(fmt::format("{} tensors", dtype),
         fmt::format("{}, {}", count.first, human_bytes(count.second)));
  if (options.metadata) {
    out += "\nmetadata\n";
    for (size_t i = 0; i < n_metadata; i++) {
      dasan_str key, value;
      check(dasan_model_metadata_at(model.get(), i, &key, &value));
      out += fmt::format("  {} = {}\n", detail::view(key), detail::view(value));
    }
  }
  if (options.tensors) {
    out += "\ntensors\n";
    for (const Listed& t : tensors)
      out += fmt::format("  {:<40} {:<8} {:<20} {}\n", t.name, t.dtype, t.shape,
                         human_bytes(t.size_bytes));
  }
  write_out(out);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show what a model file holds and the memory it will need");
  add_model_options(*command, options->model);
  add_engine_options(*command, options->engine);
  command->add_flag("--metadata", options->metadata, "list the metadata");
  command->add_flag("--tensors", options->tensors, "list the tensors");
  command->add_flag("--json", options->json, "everything as one JSON object");
  command->callback([options] { run(*options); });
}

}  // namespace dasan::cli
