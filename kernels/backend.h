// What a compute device can do for a transformer. No engine type appears here.
//
// An engine owns one Stream; a model owns the Backend that packed its weights. Ops are enqueued on
// a stream, run in order and may return before they ran; results are readable on the host after
// synchronize(). Arguments are validated by the caller once, at load; an op whose key supports()
// accepts never fails for its shape. A device fault throws Error(kDevice) and ends that stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"

namespace dasan::kernels {

enum class Op : uint8_t {
  kEmbed,
  kGatherRows,
  kRmsNorm,
  kMatmul,
  kRopeAppendKv,
  kAttention,
  kGatedAct,
  kMoeRoute,
  kMoeMlp,
};

// All that kernel selection may depend on besides shape.
struct OpKey {
  Op op;
  DType weight = DType::kF32;  // embed, matmul, moe_mlp: dtype of the canonical weight
  DType kv = DType::kF32;      // rope_append_kv, attention
  int32_t head_dim = 0;        // rope_append_kv, attention
};

class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual size_t size_bytes()
      const noexcept = 0;  // memory it owns; 0 when it uses the file in place

  DType dtype() const noexcept { return dtype_; }
  int32_t rows() const noexcept { return rows_; }  // of one expert
  int32_t cols() const noexcept { return cols_; }
  int32_t n_experts() const noexcept { return n_experts_; }  // 1: a plain matrix

 protected:
  PackedWeight(DType dtype, int32_t rows, int32_t cols, int32_t n_experts = 1)
      : dtype_(dtype), rows_(rows), cols_(cols), n_experts_(n_experts) {}

 private:
  DType dtype_;
  int32_t rows_, cols_, n_experts_;
};

// Device memory, 64-byte aligned or better, zero-filled.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() noexcept = 0;  // a device address; host-readable on CPU backends
  virtual size_t size_bytes() const noexcept = 0;
};

class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
};

// The largest step a stream will see; its scratch memory is sized once from it.
struct StreamLimits {
  int32_t n_threads = 1;  // CPU backends
  bool graphs = true;     // CUDA: decode steps are recorded and replayed; the bits are the same
  int32_t max_rows = 1;   // rows of any operand
  int32_t max_seqs = 1;
  int32_t max_cols = 1;  // the widest k of a matmul
  int32_t max_heads = 1, max_head_dim = 1;
  int32_t max_context = 1;  // tokens of the longest sequence
  // Mixtures of experts; 0: none.
  int32_t max_experts = 0, max_experts_per_row = 0;
  int32_t max_expert_cols = 0;  // the widest d_ff of an expert
};

// An ordering domain with its threads and scratch memory. Used by one thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual size_t scratch_bytes() const noexcept = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const noexcept = 0;  // "cpu:avx512", "cuda:0:sm_90", "reference"
  virtual bool supports(const OpKey& key) const noexcept = 0;
  virtual std::string_view kernel_name(const OpKey& key) const noexcept = 0;  // for bench and logs

  virtual std::unique_ptr<Stream> new_stream(const StreamLimits& limits) = 0;
  virtual size_t stream_bytes(const StreamLimits& limits) const noexcept = 0;  // its scratch memory
  virtual std::unique_ptr<Buffer> allocate(size_t size_bytes) = 0;  // Error(kOutOfMemory)
  // A buffer with a copy of these host bytes. [any thread]
  virtual std::unique_ptr<Buffer> allocate_copy(std::span<const std::byte> bytes) {
    auto buffer = allocate(bytes.size());
    std::memcpy(buffer->data(), bytes.data(), bytes.size());
    return buffer;
  }
  // Whether the host may read and write the memory of buffers. Where it may not, what is to be read
  // goes through copy_to_host(), fastest into memory of allocate_host().
  virtual bool is_host_memory() const noexcept { return true; }
  virtual std::unique_ptr<Buffer> allocate_host(size_t size_bytes) { return allocate(size_bytes); }
  // What is left of the memory that buffers come from; 0: the host's, which this class does not
  // ask.
  virtual size_t available_bytes() const { return 0; }

  // Canonical (GGUF) rows in host memory -> this backend's layout, once, losslessly. [any thread]
  // `canonical` need not outlive the call, except for pack_embedding on backends that use it in
  // place (size_bytes() == 0 then), where the model keeps the file mapped.
  virtual std::unique_ptr<PackedWeight> pack(const ConstMatView& canonical) = 0;
  virtual std::unique_ptr<PackedWeight> pack_embedding(const ConstMatView& canonical) = 0;
  // How much of packed_bytes() the coming calls of pack() and pack_experts() will add up to, in how
  // many calls, so that it can be one allocation. Optional.
  virtual void expect_weights(size_t bytes, size_t calls) {
    static_cast<void>(bytes);
    static_cast<void>(calls);
  }
  // Matrices of one type and shape, one per expert, as one weight.
  virtual std::unique_ptr<PackedWeight> pack_experts(std::span<const ConstMatView> experts) = 0;
  // The canonical rows again, byte for byte, expert after expert; for tests. out holds
  // n_experts * rows * row_bytes(dtype, cols).
  virtual void unpack(const PackedWeight& packed, std::span<std::byte> out) const = 0;
  // What pack() of this shape would own, and pack_experts() per expert.
  virtual size_t packed_bytes(DType dtype, int32_t rows, int32_t cols) const noexcept = 0;

  virtual size_t kv_page_bytes(const KvShape& shape) const noexcept = 0;
  virtual std::unique_ptr<AttentionPlan> new_plan(const StreamLimits& limits) = 0;
  // `batch` must stay unchanged until the step's last attention ran.
  virtual void plan(AttentionPlan& plan, const RaggedBatch& batch) = 0;

  // Around the operations of one step that is planned, where the caller repeats the same operations
  // on the same buffers for every step of the same number of rows, sequences and logit rows. A
  // backend may then record a step and replay it: the operations between only bring their spans.
  // Operations outside of a step run as they come.
  virtual void begin_step(Stream&, const AttentionPlan&, int32_t /*n_logit_rows*/) {}
  virtual void end_step(Stream&) {}

  virtual void embed(Stream&, const EmbedArgs&) = 0;
  virtual void gather_rows(Stream&, const GatherRowsArgs&) = 0;
  virtual void rms_norm(Stream&, const RmsNormArgs&) = 0;
  virtual void matmul(Stream&, const MatmulArgs&) = 0;
  virtual void rope_append_kv(Stream&, const RopeAppendKvArgs&) = 0;
  virtual void attention(Stream&, const AttentionArgs&) = 0;
  virtual void gated_act(Stream&, const GatedActArgs&) = 0;
  virtual void moe_route(Stream&, const MoeRouteArgs&) = 0;
  virtual void moe_mlp(Stream&, const MoeMlpArgs&) = 0;

  virtual void copy_to_host(Stream&, void* dst, const void* src, size_t size_bytes) = 0;
  virtual void copy_to_device(Stream&, void* dst, const void* src, size_t size_bytes) = 0;
  virtual void copy_within(Stream&, void* dst, const void* src, size_t size_bytes) = 0;
  virtual void synchronize(Stream&) = 0;
};

// Scalar, double accumulation, one thread: the oracle of the kernel suite.
// `rounding` names the matrix products' contract (MatmulOut in ops.h) whose activations it uses.
enum class ActivationRounding : uint8_t { kInt8Blocks, kSixteenBits };  // that of CPU, of CUDA
std::unique_ptr<Backend> make_reference_backend(
    ActivationRounding rounding = ActivationRounding::kInt8Blocks);

enum class CpuIsa : uint8_t { kGeneric, kAvx2, kAvx512 };
std::string_view cpu_isa_name(CpuIsa isa) noexcept;    // "generic", "avx2", "avx512"
std::span<const CpuIsa> runnable_cpu_isas() noexcept;  // compiled in and supported here, best first
// The best runnable one, or the one named by `forced` (as DASAN_CPU_ISA would hold it; empty:
// none). Error(kInvalidArgument) for an unknown name, Error(kUnsupported) for one this machine
// lacks.
CpuIsa choose_cpu_isa(std::string_view forced);
std::unique_ptr<Backend> make_cpu_backend(CpuIsa isa);

struct CudaDevice {
  int32_t ordinal = 0;
  std::string name;
  int32_t major = 0, minor = 0;  // compute capability
  size_t memory_total = 0, memory_free = 0;
};
bool built_with_cuda() noexcept;
std::vector<CudaDevice> cuda_devices();  // none where the driver or the build has none
// Error(kUnsupported): built without CUDA, or a device older than sm_80; Error(kNotFound): no
// driver, one that is too old, no such device.
std::unique_ptr<Backend> make_cuda_backend(int32_t ordinal);

}  // namespace dasan::kernels
