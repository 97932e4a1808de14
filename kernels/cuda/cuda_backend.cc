// The CUDA backend: device memory, streams, and every operation as a launch. Its numeric contract
// is that of ops.h with its own order of sums (docs/kernels.md, "CUDA").
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/core/status.h"
#include "kernels/cuda/attention_work.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/stream.h"

namespace dasan::kernels {
namespace cuda {
namespace {

constexpr int32_t kMinMajor = 8;  // mma.sync on bf16 and cp.async need sm_80

size_t stride(const ConstMatView& v) { return v.row_stride_bytes / sizeof(float); }
const float* floats(const ConstMatView& v) { return static_cast<const float*>(v.data); }
float* floats(const MatView& v) { return static_cast<float*>(v.data); }

CudaStream& cuda_stream(Stream& s) { return static_cast<CudaStream&>(s); }

DeviceInfo read_device(int32_t ordinal) {
  DeviceInfo d;
  d.ordinal = ordinal;
  const auto get = [&](cudaDeviceAttr attribute) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, attribute, ordinal), ordinal, "the query of the device");
    return value;
  };
  d.major = get(cudaDevAttrComputeCapabilityMajor);
  d.minor = get(cudaDevAttrComputeCapabilityMinor);
  d.n_sms = get(cudaDevAttrMultiProcessorCount);
  d.l2_bytes = static_cast<size_t>(get(cudaDevAttrL2CacheSize));
  d.shared_bytes_per_block = static_cast<size_t>(get(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  return d;
}

class CudaBuffer final : public Buffer {
 public:
  explicit CudaBuffer(DeviceMemory memory) : memory_(std::move(memory)) {}
  void* data() noexcept override { return memory_.data(); }
  size_t size_bytes() const noexcept override { return memory_.size(); }

 private:
  DeviceMemory memory_;
};

class PinnedBuffer final : public Buffer {
 public:
  explicit PinnedBuffer(PinnedMemory memory) : memory_(std::move(memory)) {}
  void* data() noexcept override { return memory_.data(); }
  size_t size_bytes() const noexcept override { return memory_.size(); }

 private:
  PinnedMemory memory_;
};

// A table for row look-up, in its canonical bytes.
class CudaTable final : public PackedWeight {
 public:
  CudaTable(const ConstMatView& w, DeviceMemory memory)
      : PackedWeight(w.dtype, w.rows, w.cols), memory_(std::move(memory)) {}
  size_t size_bytes() const noexcept override { return memory_.size(); }
  const uint8_t* data() const noexcept { return reinterpret_cast<const uint8_t*>(memory_.data()); }

 private:
  DeviceMemory memory_;
};

KvType kv_type(DType t) {
  return t == DType::kF32 ? KvType::kF32 : t == DType::kF16 ? KvType::kF16 : KvType::kBF16;
}

constexpr int32_t kMaxHeadDim = 256;

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const DeviceInfo& device)
      : device_(device),
        name_("cuda:" + std::to_string(device.ordinal) + ":sm_" + std::to_string(device.major) +
              std::to_string(device.minor)),
        upload_stream_(device.ordinal) {}

  std::string_view name() const noexcept override { return name_; }

  bool supports(const OpKey& key) const noexcept override {
    switch (key.op) {
      case Op::kMatmul:
        return matmul_supports(key.weight);
      case Op::kGatherRows:
      case Op::kRmsNorm:
      case Op::kGatedAct:
        return true;
      case Op::kEmbed:
        return embed_supports(static_cast<int32_t>(key.weight));
      case Op::kRopeAppendKv:
      case Op::kAttention:
        return key.head_dim > 0 && key.head_dim <= kMaxHeadDim &&
               (key.kv == DType::kF32 || key.kv == DType::kF16 || key.kv == DType::kBF16);
      case Op::kMoeRoute:
      case Op::kMoeMlp:
        return false;
    }
    return false;
  }
  std::string_view kernel_name(const OpKey& key) const noexcept override {
    if (!supports(key)) return "unsupported";
    if (key.op == Op::kMatmul) return matmul_kernel_name(key.weight);
    if (key.op == Op::kAttention) return stages(key.kv, key.head_dim) > 0 ? "mma.sync" : "plain";
    return "cuda";
  }

  std::unique_ptr<Stream> new_stream(const StreamLimits& limits) override {
    const DeviceScope scope(device_.ordinal);
    return std::make_unique<CudaStream>(device_, limits, count_);
  }
  size_t stream_bytes(const StreamLimits& limits) const noexcept override {
    return CudaStream::scratch_bytes_of(limits);
  }
  std::unique_ptr<Buffer> allocate(size_t size_bytes) override {
    const DeviceScope scope(device_.ordinal);
    DeviceMemory memory(device_.ordinal, size_bytes, count_);
    const std::lock_guard lock(upload_mutex_);
    checked(cudaMemsetAsync(memory.data(), 0, size_bytes, upload_stream_.get()), "clearing memory");
    checked(cudaStreamSynchronize(upload_stream_.get()), "clearing memory");
    return std::make_unique<CudaBuffer>(std::move(memory));
  }

  std::unique_ptr<Buffer> allocate_copy(std::span<const std::byte> bytes) override {
    return std::make_unique<CudaBuffer>(upload(bytes));
  }
  bool is_host_memory() const noexcept override { return false; }
  std::unique_ptr<Buffer> allocate_host(size_t size_bytes) override {
    return std::make_unique<PinnedBuffer>(PinnedMemory(device_.ordinal, size_bytes));
  }
  size_t available_bytes() const override {
    const DeviceScope scope(device_.ordinal);
    size_t free = 0, total = 0;
    checked(cudaMemGetInfo(&free, &total), "the query of free memory");
    return free;
  }

  std::unique_ptr<PackedWeight> pack(const ConstMatView& w) override {
    require(Op::kMatmul, w.dtype);
    std::vector<std::byte> packed(matmul_packed_bytes(w.dtype, w.rows, w.cols));
    matmul_pack(w, packed);
    return std::make_unique<CudaWeight>(w.dtype, w.rows, w.cols, upload(packed));
  }
  std::unique_ptr<PackedWeight> pack_experts(std::span<const ConstMatView> experts) override {
    if (experts.size() == 1) return pack(experts.front());
    refuse("a mixture of experts");
  }
  std::unique_ptr<PackedWeight> pack_embedding(const ConstMatView& w) override {
    require(Op::kEmbed, w.dtype);
    const size_t row = row_bytes(w.dtype, w.cols);
    if (w.row_stride_bytes == row)
      return std::make_unique<CudaTable>(w, upload({w.row(0), row * static_cast<size_t>(w.rows)}));
    std::vector<std::byte> rows;
    for (int32_t r = 0; r < w.rows; r++) rows.insert(rows.end(), w.row(r), w.row(r) + row);
    return std::make_unique<CudaTable>(w, upload(rows));
  }
  void unpack(const PackedWeight& packed, std::span<std::byte> out) const override {
    const auto& w = static_cast<const CudaWeight&>(packed);
    std::vector<std::byte> bytes(w.size_bytes());
    const DeviceScope scope(device_.ordinal);
    const std::lock_guard lock(upload_mutex_);
    checked(cudaMemcpyAsync(bytes.data(), w.data(), bytes.size(), cudaMemcpyDeviceToHost,
                            upload_stream_.get()),
            "reading a weight");
    checked(cudaStreamSynchronize(upload_stream_.get()), "reading a weight");
    matmul_unpack(w.dtype(), w.rows(), w.cols(), bytes, out);
  }
  size_t packed_bytes(DType dtype, int32_t rows, int32_t cols) const noexcept override {
    return matmul_packed_bytes(dtype, rows, cols);
  }

  size_t kv_page_bytes(const KvShape& shape) const noexcept override {
    return size_t{2} * kPageTokens * static_cast<size_t>(shape.n_kv_heads) *
           static_cast<size_t>(shape.head_dim) *
           static_cast<size_t>(dtype_info(shape.dtype).block_bytes);
  }
  std::unique_ptr<AttentionPlan> new_plan(const StreamLimits& limits) override {
    return std::make_unique<CudaAttentionPlan>(limits);
  }
  void plan(AttentionPlan& plan, const RaggedBatch& batch) override {
    static_cast<CudaAttentionPlan&>(plan).build(batch);
  }

  void begin_step(Stream& s, const AttentionPlan& p, int32_t n_logit_rows) override {
    const auto& plan = static_cast<const CudaAttentionPlan&>(p);
    // A prompt's shapes seldom repeat, and its launches are few beside their work.
    if (!plan.many().empty() || plan.all().empty()) return;
    const DeviceScope scope(device_.ordinal);
    StepShape shape;
    shape.n_rows = static_cast<int32_t>(plan.all().size());
    shape.n_logit_rows = n_logit_rows;
    shape.n_splits = static_cast<int32_t>(plan.splits().size());
    shape.n_merged = static_cast<int32_t>(plan.merged().size());
    shape.page_id_bytes = std::bit_ceil(plan.page_ids().size_bytes());
    cuda_stream(s).begin_step(shape);
  }
  void end_step(Stream& s) override {
    const DeviceScope scope(device_.ordinal);
    cuda_stream(s).end_step();
  }

  void embed(Stream& s, const EmbedArgs& a) override {
    const DeviceScope scope(device_.ordinal);
    CudaStream& stream = cuda_stream(s);
    const auto& table = static_cast<const CudaTable&>(*a.table);
    const EmbedJob job{table.data(),
                       row_bytes(table.dtype(), table.cols()),
                       static_cast<int32_t>(table.dtype()),
                       stream.upload(a.tokens),
                       a.scale,
                       floats(a.y),
                       stride(a.y),
                       static_cast<int32_t>(a.tokens.size()),
                       table.cols()};
    if (stream.replaying()) return;
    checked(launch_embed(job, stream.get()), "embed");
  }

  void gather_rows(Stream& s, const GatherRowsArgs& a) override {
    const DeviceScope scope(device_.ordinal);
    CudaStream& stream = cuda_stream(s);
    const GatherRowsJob job{floats(a.x), stride(a.x), stream.upload(a.rows),
                            floats(a.y), stride(a.y), static_cast<int32_t>(a.rows.size()),
                            a.x.cols};
    if (stream.replaying()) return;
    checked(launch_gather_rows(job, stream.get()), "gather_rows");
  }

  void rms_norm(Stream& s, const RmsNormArgs& a) override {
    const DeviceScope scope(device_.ordinal);
    const RmsNormJob job{floats(a.x), stride(a.x),        a.weight,          a.eps,
                         a.scale,     a.x.rows,           a.x.cols,          floats(a.y),
                         stride(a.y), floats(a.residual), stride(a.residual)};
    if (cuda_stream(s).replaying()) return;
    checked(launch_rms_norm(job, cuda_stream(s).get()), "rms_norm");
  }

  void matmul(Stream& s, const MatmulArgs& a) override {
    const DeviceScope scope(device_.ordinal);
    for (const MatmulOut& o : a.outs) require(Op::kMatmul, o.w->dtype());
    if (a.x.rows == 0 || cuda_stream(s).replaying()) return;
    checked(cuda::matmul(cuda_stream(s), a), "matmul");
  }

  void rope_append_kv(Stream& s, const RopeAppendKvArgs& a) override {
    require_kv(Op::kRopeAppendKv, a.kv.shape);
    if (a.q.rows == 0) return;
    const DeviceScope scope(device_.ordinal);
    CudaStream& stream = cuda_stream(s);
    const bool turns = !a.cos.empty();
    const RopeJob job{floats(a.q),
                      floats(a.k),
                      floats(a.v),
                      stride(a.q),
                      stride(a.k),
                      stride(a.v),
                      a.q_norm,
                      a.k_norm,
                      a.norm_eps,
                      turns ? stream.upload(a.cos) : nullptr,
                      turns ? stream.upload(a.sin) : nullptr,
                      a.rope_dim,
                      a.interleaved,
                      a.q.rows,
                      a.n_heads,
                      a.kv.shape.n_kv_heads,
                      a.kv.shape.head_dim,
                      stream.upload(a.slots),
                      static_cast<uint8_t*>(a.kv.data),
                      a.kv.page_bytes,
                      kv_type(a.kv.shape.dtype)};
    if (stream.replaying()) return;
    checked(launch_rope_append_kv(job, stream.get()), "rope_append_kv");
  }

  void attention(Stream& s, const AttentionArgs& a) override {
    require_kv(Op::kAttention, a.kv.shape);
    const auto& plan = static_cast<const CudaAttentionPlan&>(*a.plan);
    if (plan.all().empty()) return;
    const DeviceScope scope(device_.ordinal);
    CudaStream& stream = cuda_stream(s);
    AttentionJob job{};
    job.q = floats(a.q);
    job.q_stride = stride(a.q);
    job.out = floats(a.out);
    job.out_stride = stride(a.out);
    job.pages = static_cast<const uint8_t*>(a.kv.data);
    job.page_bytes = a.kv.page_bytes;
    job.page_ids = stream.upload(plan.page_ids());
    job.kv = kv_type(a.kv.shape.dtype);
    job.n_heads = a.n_heads;
    job.n_kv_heads = a.kv.shape.n_kv_heads;
    job.head_dim = a.kv.shape.head_dim;
    job.window = a.window;
    job.scale = a.scale;
    job.softcap = a.softcap;
    job.stages = stages(a.kv.shape.dtype, job.head_dim);
    job.partials = stream.attention_partials();
    const auto with = [&](std::span<const SeqWork> work) {
      AttentionJob part = job;
      part.work = stream.upload(work);
      part.n_work = static_cast<int32_t>(work.size());
      return part;
    };
    if (job.stages == 0) {
      const AttentionJob all = with(plan.all());
      if (stream.replaying()) return;
      checked(launch_attention_plain(all, plan.max_rows(), stream.get()), "attention");
      return;
    }
    const AttentionJob splits = with(plan.splits()), merged = with(plan.merged()),
                       many = with(plan.many());
    if (stream.replaying()) return;
    checked(launch_attention_decode(splits, stream.get()), "attention");
    checked(launch_attention_merge(merged, stream.get()), "attention");
    checked(launch_attention_prefill(many, plan.max_rows(), stream.get()), "attention");
  }

  void gated_act(Stream& s, const GatedActArgs& a) override {
    const DeviceScope scope(device_.ordinal);
    const GatedActJob job{floats(a.gate), floats(a.up), floats(a.y),
                          stride(a.gate), stride(a.up), stride(a.y),
                          a.gate.rows,    a.gate.cols,  a.act == Activation::kGeluTanh};
    if (cuda_stream(s).replaying()) return;
    checked(launch_gated_act(job, cuda_stream(s).get()), "gated_act");
  }

  void moe_route(Stream&, const MoeRouteArgs&) override { refuse("moe_route"); }
  void moe_mlp(Stream&, const MoeMlpArgs&) override { refuse("moe_mlp"); }

  void copy_to_host(Stream& s, void* dst, const void* src, size_t n) override {
    copy(s, dst, src, n, cudaMemcpyDeviceToHost);
  }
  void copy_to_device(Stream& s, void* dst, const void* src, size_t n) override {
    copy(s, dst, src, n, cudaMemcpyHostToDevice);
  }
  void copy_within(Stream& s, void* dst, const void* src, size_t n) override {
    copy(s, dst, src, n, cudaMemcpyDeviceToDevice);
  }
  void synchronize(Stream& s) override {
    const DeviceScope scope(device_.ordinal);
    cuda_stream(s).synchronize();
  }

 private:
  void checked(cudaError_t error, const char* what) const { check(error, device_.ordinal, what); }

  [[noreturn]] void refuse(const std::string& op) const {
    throw Error(Status::kUnsupported, name_ + ": there is no kernel for " + op);
  }
  void require(Op op, DType weight) const {
    if (!supports({op, weight}))
      refuse((op == Op::kEmbed ? "embed " : "matmul ") + std::string(dtype_info(weight).name));
  }
  void require_kv(Op op, const KvShape& s) const {
    if (!supports({op, DType::kF32, s.dtype, s.head_dim}))
      refuse("attention over " + std::string(dtype_info(s.dtype).name) + " with head_dim " +
             std::to_string(s.head_dim));
  }

  int32_t stages(DType kv, int32_t head_dim) const noexcept {
    return attention_stages(kv_type(kv), head_dim, device_.shared_bytes_per_block);
  }

  void copy(Stream& s, void* dst, const void* src, size_t n, cudaMemcpyKind kind) {
    if (n == 0) return;
    const DeviceScope scope(device_.ordinal);
    checked(cudaMemcpyAsync(dst, src, n, kind, cuda_stream(s).get()), "a copy");
  }

  DeviceMemory upload(std::span<const std::byte> bytes) {
    const DeviceScope scope(device_.ordinal);
    DeviceMemory memory(device_.ordinal, bytes.size(), count_);
    const std::lock_guard lock(upload_mutex_);
    checked(cudaMemcpyAsync(memory.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice,
                            upload_stream_.get()),
            "the copy of a weight");
    checked(cudaStreamSynchronize(upload_stream_.get()), "the copy of a weight");
    return memory;
  }

  DeviceInfo device_;
  std::string name_;
  MemoryCount count_ = std::make_shared<std::atomic<size_t>>(0);
  mutable std::mutex upload_mutex_;  // the upload stream is shared by loading threads
  StreamHandle upload_stream_;
};

}  // namespace
}  // namespace cuda

std::vector<CudaDevice> cuda_devices() {
  int count = 0;
  if (const cudaError_t e = cudaGetDeviceCount(&count); e != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  std::vector<CudaDevice> devices;
  for (int i = 0; i < count; i++) {
    cudaDeviceProp p{};
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    CudaDevice d{i, p.name, p.major, p.minor, p.totalGlobalMem, 0};
    try {
      const cuda::DeviceScope scope(i);
      size_t total = 0;
      if (cudaMemGetInfo(&d.memory_free, &total) != cudaSuccess) cudaGetLastError();
    } catch (const Error&) {
      // A device that cannot be used is still listed; making a backend on it says why.
    }
    devices.push_back(std::move(d));
  }
  return devices;
}

std::unique_ptr<Backend> make_cuda_backend(int32_t ordinal) {
  int count = 0;
  cuda::check(cudaGetDeviceCount(&count), ordinal, "the count of the devices");
  if (ordinal < 0 || ordinal >= count)
    throw Error(Status::kNotFound, "cuda:" + std::to_string(ordinal) + ": there are " +
                                       std::to_string(count) + " CUDA devices");
  const cuda::DeviceInfo device = cuda::read_device(ordinal);
  if (device.major < cuda::kMinMajor)
    throw Error(Status::kUnsupported, "cuda:" + std::to_string(ordinal) + ": compute capability " +
                                          std::to_string(device.major) + "." +
                                          std::to_string(device.minor) + ", expected at least " +
                                          std::to_string(cuda::kMinMajor) + ".0");
  return std::make_unique<cuda::CudaBackend>(device);
}

bool built_with_cuda() noexcept { return true; }

}  // namespace dasan::kernels
