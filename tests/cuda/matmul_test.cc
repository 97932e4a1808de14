// The CUDA matrix products: layouts and selection on the host, kernels under the emulator.
#include <doctest/doctest.h>

#include <cstdio>
#include <set>

#include "kernels/cuda/matmul_job.h"
#include "kernels/cuda/matmul_pack.h"
#include "kernels/cuda/matmul_select.h"
#include "tests/kernels/matmul_checks.h"

namespace suite {
namespace {

using namespace dasan::kernels::cuda;

std::vector<DType> packed_types() {
  std::vector<DType> types;
  for (const DType t : weight_types())
    if (weight_format(t)) types.push_back(t);
  return types;
}

void report(const char* what, const Failures& f) {
  for (size_t i = 0; i < f.list.size() && i < 20; i++) MESSAGE(f.list[i]);
  CHECK(f.list.empty());
  std::printf("%-28s %lld checks\n", what, static_cast<long long>(f.checks));
}

TEST_CASE("matmul layout: a tile gives every row back, of every type, in shapes with padding") {
  Failures f;
  for (const DType t : packed_types())
    for (const int32_t rows : {1, 16, 37})
      for (const int32_t k : {32, 96, 256, 768}) {
        if (k % dtype_info(t).block_elems != 0) continue;
        Random random(static_cast<uint64_t>(rows * k));
        for (const Regime regime : {Regime::kBlocks, Regime::kNormal}) {
          const Weight w = make_weight(t, rows, k, regime, random);
          const PackedShape shape = packed_shape(*weight_format(t), rows, k);
          std::vector<std::byte> tile(shape.tile_bytes()), row(row_bytes(t, k));
          for (int32_t i = 0; i < shape.tiles; i++) {
            pack_tile(w.view(), i, tile.data());
            for (int32_t r = i * kTileRows; r < std::min(rows, (i + 1) * kTileRows); r++) {
              unpack_row(t, k, tile.data(), r % kTileRows, row.data());
              f.checks++;
              if (std::memcmp(row.data(), w.view().row(r), row.size()) != 0)
                f.add(std::string(dtype_info(t).name) + " row " + std::to_string(r) + " k " +
                      std::to_string(k) + " changed");
            }
          }
        }
      }
  report("matmul layout", f);
}

// The fragments of the PTX ISA manual, written down once more: A of m16n8k16 has, in register i of
// lane 4g + t, row g + 8 (i % 2) and k slots 2t + 8 (i / 2) and the next.
TEST_CASE("matmul layout: a lane's registers hold what the instruction takes from it") {
  for (int row = 0; row < kTileRows; row++)
    for (int k = 0; k < 64; k++) {
      const FragmentSlot s = fragment_slot(row, k);
      const int i = fragment_register(s);
      CHECK(s.lane / 4 + 8 * (i % 2) == row);
      // The slot of k that this register is, and where the other operand has the element: a lane
      // loads 16 bytes at activation position 8t of the group, registers b0, b1 of step 0, then 1.
      const int slot = 2 * (s.lane % 4) + 8 * (i / 2) + s.half;
      const int t = slot % 8 / 2, position = 8 * t + 4 * s.step + 2 * (slot / 8) + slot % 2;
      CHECK(activation_position(k) == s.group * kGroup + position);
      CHECK(k / 16 == 2 * s.group + s.step);
    }
}

TEST_CASE("matmul layout: every element has bits of its own inside the payload") {
  const auto distinct = [](WeightFormat f, BitPlace (*place)(const FragmentSlot&), int width,
                           int plane, int plane_bytes) {
    std::set<int64_t> seen;
    for (int row = 0; row < kTileRows; row++)
      for (int k = 0; k < stage_layout(f).k; k++) {
        const FragmentSlot s = fragment_slot(row, k);
        const BitPlace at = place(s);
        const int byte = lane_word_offset(plane, s.lane, at.word);
        CHECK(byte >= plane);
        CHECK(byte + 4 <= plane + plane_bytes);
        CHECK(at.bit + width <= 32);
        CHECK(at.bit % width == 0);
        CHECK(seen.insert(int64_t{byte} * 32 + at.bit).second);
        // The lane reads it in its own 16 bytes.
        CHECK((byte - plane) % kChunkBytes / 16 == s.lane);
      }
    CHECK(static_cast<int>(seen.size()) * width == plane_bytes * 8);
  };
  distinct(WeightFormat::kBF16, half_place, 16, 0, 2048);
  distinct(WeightFormat::kQ8_0, byte_place, 8, 0, 2048);
  distinct(WeightFormat::kQ4_0, nibble_place, 4, 0, 1024);
  distinct(WeightFormat::kQ4_K, nibble_place, 4, 0, 2048);
  distinct(WeightFormat::kQ5_K, fifth_bit_place, 1, kNibblePlaneBytes256, 512);
  distinct(WeightFormat::kQ6_K, two_bit_place, 2, kNibblePlaneBytes256, 1024);
}

TEST_CASE("matmul: slices of k depend on the weight alone and cover it") {
  for (int f = 0; f < kWeightFormats; f++) {
    const auto format = static_cast<WeightFormat>(f);
    const int stage_k = stage_layout(format).k;
    for (const int32_t n : {1, 16, 1024, 4096, 14336, 28672, 128256})
      for (const int32_t k : {32, 256, 2048, 2880, 4096, 14336, 28672}) {
        const PackedShape shape = packed_shape(format, n, k);
        const int32_t slices = matmul_slices(format, shape.tiles, shape.stages);
        CHECK(slices >= 1);
        CHECK(slices <= shape.stages);
        CHECK(longest_slice(shape.stages, slices) * stage_k <= 1024);
        CHECK(slice_begin(shape.stages, slices, 0) == 0);
        CHECK(slice_begin(shape.stages, slices, slices) == shape.stages);
        for (int32_t s = 0; s < slices; s++) {
          const int32_t length =
              slice_begin(shape.stages, slices, s + 1) - slice_begin(shape.stages, slices, s);
          CHECK(length >= 1);
          CHECK(length <= longest_slice(shape.stages, slices));
        }
      }
  }
}

TEST_CASE("matmul: what runs a shape fits the device") {
  constexpr MatmulDevice kHopper{132, 227 * 1024}, kAmpere{108, 163 * 1024}, kAda{142, 99 * 1024};
  for (const MatmulDevice& device : {kHopper, kAmpere, kAda})
    for (int f = 0; f < kWeightFormats; f++) {
      const auto format = static_cast<WeightFormat>(f);
      for (const int32_t n : {16, 4096, 28672, 128256})
        for (const int32_t k : {256, 4096, 14336})
          for (const int32_t rows : {1, 2, 8, 9, 16, 17, 32, 33, 64, 128, 512, 4096}) {
            const PackedShape shape = packed_shape(format, n, k);
            const int32_t slices = matmul_slices(format, shape.tiles, shape.stages);
            const MatmulConfig c = matmul_select(device, format, rows, shape.tiles, shape.stages,
                                                 longest_slice(shape.stages, slices));
            INFO("format ", f, " n ", n, " k ", k, " rows ", rows, " SMs ", device.n_sms);
            if (rows <= 8) CHECK(c.kernel == MatmulKernel::kStream);
            if (c.kernel == MatmulKernel::kGemm) {
              CHECK(gemm_shared_bytes(format) <= device.shared_bytes);
              continue;
            }
            CHECK(c.shared_bytes <= device.shared_bytes);
            CHECK(c.ctas_per_sm * c.shared_bytes <= device.shared_bytes);
            CHECK((c.token_tiles == 1 || (c.token_tiles - 1) * 8 < 2 * rows));
            const int32_t ctas = stream_ctas(device, c, shape.tiles, slices, 1.0);
            CHECK(ctas % slices == 0);
            CHECK(ctas <= std::max(slices, device.n_sms * c.ctas_per_sm));
          }
    }
  // A prompt on a large device is a matter of arithmetic.
  const PackedShape up = packed_shape(WeightFormat::kQ4_K, 28672, 4096);
  CHECK(matmul_select(kHopper, WeightFormat::kQ4_K, 512, up.tiles, up.stages, 4).kernel ==
        MatmulKernel::kGemm);
  CHECK(matmul_select(kHopper, WeightFormat::kQ4_K, 32, up.tiles, up.stages, 4).token_tiles == 4);
}

// Shared memory is read 16 bytes a lane, 8 lanes at a time: they must touch every bank once.
TEST_CASE("matmul: activations are read from shared memory without bank conflicts") {
  for (int half = 0; half < 2; half++)
    for (int first_lane = 0; first_lane < kWarp; first_lane += 8) {
      std::set<int> banks;
      for (int lane = first_lane; lane < first_lane + 8; lane++) {
        const int offset = x_offset(lane / 4, half * 4 + lane % 4);
        CHECK(offset == (x_offset(lane / 4, lane % 4) ^ (half * 64)));
        for (int word = 0; word < 4; word++) banks.insert((offset / 4 + word) % 32);
      }
      CHECK(banks.size() == 32);
    }
}

// Rows enough for the kernel of prompts; its rows one by one are the business of the other kernel.
MatmulCase prompt_case(DType t, Regime regime, int32_t variant) {
  const int32_t rows = 150, n = 37, k = 512;
  const PackedShape shape = packed_shape(*weight_format(t), n, k);
  const int32_t slices = matmul_slices(shape.format, shape.tiles, shape.stages);
  CHECK(slices > 1);
  CHECK(matmul_select({132, 227 * 1024}, shape.format, rows, shape.tiles, shape.stages,
                      longest_slice(shape.stages, slices))
            .kernel == MatmulKernel::kGemm);
  return matmul_case(t, regime, rows, n, k, variant, 77 + static_cast<uint64_t>(t));
}

TEST_CASE("matmul: every weight format under the emulator") {
  const auto reference = make_reference_backend(ActivationRounding::kSixteenBits);
  const auto tested = make_cuda_backend(0);
  int32_t ran = 0;
  for (const DType t : weight_types()) {
    if (!tested->supports({Op::kMatmul, t})) continue;
    // The formats differ in a few lines each; instrumented, these stand for all.
    if (kSanitized && t != DType::kBF16 && t != DType::kQ4_0 && t != DType::kQ6_K) continue;
    Failures f;
    const auto visit = [&](const OpCase& c) {
      judge(c, *tested, *reference, f);
      ran++;
    };
    matmul_cases(t, !quick(), visit);
    if (weight_format(t)) {
      visit(prompt_case(t, Regime::kExact, 7));
      if (!quick()) visit(prompt_case(t, Regime::kNormal, 3));
    }
    report(("matmul " + std::string(dtype_info(t).name)).c_str(), f);
  }
  REQUIRE(ran > 0);
}

TEST_CASE("matmul: packing loses nothing") {
  const auto b = make_cuda_backend(0);
  for (const DType t : weight_types()) {
    if (!b->supports({Op::kMatmul, t})) continue;
    Random random(9);
    const Weight w = make_weight(t, 37, 512, Regime::kBlocks, random);
    const auto packed = b->pack(w.view());
    std::vector<std::byte> back(w.bytes.size());
    b->unpack(*packed, back);
    CHECK(back == w.bytes);
    CHECK(packed->size_bytes() == b->packed_bytes(t, 37, 512));
  }
}

// What a kernel with one defect would compute, made by handing a sound one changed operands. The
// bounds of the suite must notice each.
TEST_CASE("matmul: a wrong fragment, a step of k left out and a scale left out are caught") {
  const auto reference = make_reference_backend(ActivationRounding::kSixteenBits);
  const auto tested = make_cuda_backend(0);
  int32_t caught = 0;
  for (const DType t : packed_types()) {
    const MatmulCase sound = matmul_case(t, Regime::kNormal, 3, 21, 512, 1, 5);
    Failures ignored;
    const std::vector<float> want = sound.run(*reference, 1, 0, 3, ignored);
    const auto must_be_caught = [&](const std::string& what, const MatmulCase& broken) {
      Failures f;
      within(what, want, broken.run(*tested, 1, 0, 3, f), sound.bound, f);
      INFO(std::string(dtype_info(t).name), ": ", what);
      CHECK(f.any());
      caught += f.any() ? 1 : 0;
    };
    const auto with_x = [&](auto&& change) {
      MatmulCase c = sound;
      for (int32_t r = 0; r < c.rows; r++) change(c.x.row(r));
      return c;
    };
    must_be_caught("the two registers of a step exchanged",
                   with_x([](float* x) { std::swap(x[2], x[4]); }));
    must_be_caught("a step of k left out", with_x([](float* x) { std::fill_n(x + 48, 16, 0.0f); }));
    must_be_caught("one element left out", with_x([](float* x) { x[333] = 0.0f; }));
    must_be_caught("the last group left out",
                   with_x([](float* x) { std::fill_n(x + 480, 32, 0.0f); }));
    MatmulCase rows = sound;
    for (int32_t i = 0; i < 8; i++)  // rows g and g + 8
      std::swap_ranges(rows.w.bytes.begin() + i * static_cast<int64_t>(row_bytes(t, 512)),
                       rows.w.bytes.begin() + (i + 1) * static_cast<int64_t>(row_bytes(t, 512)),
                       rows.w.bytes.begin() + (i + 8) * static_cast<int64_t>(row_bytes(t, 512)));
    must_be_caught("rows g and g + 8 exchanged", rows);
    if (dtype_info(t).quantized) {
      MatmulCase scale = sound;
      std::byte* d = scale.w.bytes.data() + scale_fields(t).d;
      if (t == DType::kMXFP4)
        *d = std::byte{127};
      else
        std::memcpy(d, "\0\x3C", 2);  // 1 in f16
      must_be_caught("a scale left out", scale);
    }
  }
  std::printf("%-28s %d of planted faults caught\n", "matmul", caught);
}

}  // namespace
}  // namespace suite
