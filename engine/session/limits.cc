#include "engine/session/limits.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

#include "kernels/core/status.h"

namespace dasan {
namespace {

constexpr uint32_t kDefaultContextLimit = 32768;
constexpr int32_t kLogitRows = 32;

[[noreturn]] void bad_argument(std::string message) {
  throw Error(Status::kInvalidArgument, std::move(message));
}

void check_range(const char* name, uint64_t value, uint64_t low, uint64_t high) {
  if (value < low || value > high)
    bad_argument(std::string(name) + " is " + std::to_string(value) + ", expected " +
                 std::to_string(low) + " to " + std::to_string(high));
}

// What can be had without swapping, the page cache included; 0: the system does not say.
uint64_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string key, unit;
  uint64_t value = 0;
  while (info >> key >> value) {
    std::getline(info, unit);
    if (key == "MemAvailable:") return value * 1024;
  }
  return 0;
}

// The most that the KV pages take unasked: a quarter of the memory that the host can spare; most of
// what a device has left, because nothing else is meant to come there.
uint64_t default_kv_bytes(const kernels::Backend& backend) {
  if (!backend.is_host_memory()) return backend.available_bytes() / 10 * 8;
  return available_memory() / 4;
}

}  // namespace

kernels::DType kv_dtype(const Model& model, KvType type) {
  switch (type) {
    case KvType::kF16:
      return kernels::DType::kF16;
    case KvType::kBF16:
      return kernels::DType::kBF16;
    case KvType::kF32:
      return kernels::DType::kF32;
    case KvType::kAuto:
      break;
  }
  return model.quantization() == "F32" ? kernels::DType::kF32 : kernels::DType::kF16;
}

uint64_t kv_page_bytes(const Model& model, kernels::DType dtype) {
  uint64_t bytes = 0;
  for (const LayerSpec& layer : model.spec().layers)
    bytes += model.backend().kv_page_bytes({dtype, layer.n_kv_heads, layer.head_dim});
  return bytes;
}

EngineOptions resolve_options(const Model& model, EngineOptions o) {
  const auto trained = static_cast<uint32_t>(std::max(model.spec().n_ctx_train, 1));
  if (o.max_sequences == 0) o.max_sequences = 16;
  if (o.max_batch_tokens == 0) o.max_batch_tokens = 512;
  if (o.max_context == 0) o.max_context = std::min(trained, kDefaultContextLimit);
  if (o.max_queued == 0) o.max_queued = 1024;
  o.mixed_prefill_tokens = std::min(o.mixed_prefill_tokens, o.max_batch_tokens);
  if (o.n_threads == 0) o.n_threads = std::max(1u, std::thread::hardware_concurrency());
  check_range("max_sequences", o.max_sequences, 1, 4096);
  check_range("max_batch_tokens", o.max_batch_tokens, 1, 65536);
  check_range("max_context", o.max_context, 2, trained);
  check_range("n_threads", o.n_threads, 1, 1024);
  return o;
}

ExecLimits exec_limits(const Model& model, const EngineOptions& o) {
  ExecLimits limits;
  limits.max_rows = static_cast<int32_t>(o.max_batch_tokens);
  limits.max_seqs = static_cast<int32_t>(std::min(o.max_sequences, o.max_batch_tokens));
  // Scored texts and verified proposals want more than a row of each sequence.
  limits.max_logit_rows = std::min(limits.max_rows, std::max(limits.max_seqs, kLogitRows));
  limits.max_context = static_cast<int32_t>(o.max_context);
  limits.n_threads = static_cast<int32_t>(o.n_threads);
  limits.kv_dtype = kv_dtype(model, o.kv_type);
  const uint64_t per_page = kv_page_bytes(model, limits.kv_dtype);
  uint64_t pages = static_cast<uint64_t>(pages_for_tokens(o.max_context));
  if (o.kv_bytes != 0) {
    pages = o.kv_bytes / per_page;
    if (pages == 0)
      bad_argument("kv_bytes is " + std::to_string(o.kv_bytes) +
                   ", expected at least one page of " + std::to_string(per_page));
  } else if (const uint64_t share = default_kv_bytes(model.backend()); share > per_page) {
    pages = std::min<uint64_t>(pages, share / per_page);
  }
  check_range("KV pages", pages, 1, 1u << 26);
  limits.n_pages = static_cast<int32_t>(pages);
  return limits;
}

}  // namespace dasan
