// Saving and restoring a sequence. Layout, little-endian: a header (magic, version, KV dtype, a
// fingerprint of model, device and library, page bytes, tokens, tokens that have KV, pages let go,
// cache salt, its checksum), then the tokens and the pages, each block followed by its checksum
// (FNV-1a, 64 bits: it finds damage, not malice; which is why restored pages never enter the prefix
// index).
#include <cstring>
#include <string>
#include <string_view>

#include "engine/session/engine.h"
#include "engine/session/limits.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

constexpr uint64_t kMagic = 0x504E53'4E41534144;  // "DASANSNP"
constexpr uint32_t kVersion = 3;

struct Header {
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  uint32_t kv_dtype = 0;
  uint64_t origin = 0, page_bytes = 0, n_tokens = 0, n_computed = 0, first_page = 0, salt = 0,
           checksum = 0;
};
static_assert(sizeof(Header) == 72);

// Holds the executor between two steps of an engine that is always busy.
class ExecutorTurn {
 public:
  ExecutorTurn(std::mutex& mutex, std::atomic<int32_t>& waiters)
      : mutex_(mutex), waiters_(waiters) {
    waiters_.fetch_add(1);
    mutex_.lock();
  }
  ~ExecutorTurn() {
    waiters_.fetch_sub(1);
    mutex_.unlock();
  }
  ExecutorTurn(const ExecutorTurn&) = delete;
  ExecutorTurn& operator=(const ExecutorTurn&) = delete;

 private:
  std::mutex& mutex_;
  std::atomic<int32_t>& waiters_;
};

uint64_t checksum(const void* data, size_t size, uint64_t state = 0xCBF29CE484222325u) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; i++) state = (state ^ bytes[i]) * 0x100000001B3u;
  return state;
}

uint64_t header_checksum(Header header) {
  header.checksum = 0;
  return checksum(&header, sizeof header);
}

// Of all that the bits of KV depend on: the model, the library's version, and where it ran. The
// tables of a processor share their layout and their bits; devices of one kind are one.
uint64_t origin(const Model& model) {
  const std::string_view device = model.backend().name();
  const std::string_view kind = device.substr(0, device.find(':'));
  const std::string_view version = DASAN_VERSION_STRING;
  uint64_t sum = checksum(kind.data(), kind.size(), model.fingerprint());
  if (kind != "cpu" && device.rfind(':') != std::string_view::npos)
    sum = checksum(device.data() + device.rfind(':'), device.size() - device.rfind(':'), sum);
  return checksum(version.data(), version.size(), sum);
}

[[noreturn]] void bad_snapshot(const std::string& why) {
  throw Error(Status::kFormat, "snapshot: " + why);
}

}  // namespace

void Engine::save(const Sequence& sequence, const Writer& write) {
  const std::shared_ptr<Sequence> shared = fork(sequence);
  Sequence& copy = *shared;
  {
    const std::lock_guard lock(mutex_);
    copy.busy = copy.listed = true;  // not to be evicted meanwhile
  }
  const auto release = [&] {
    const std::lock_guard lock(mutex_);
    release_pages(copy);
  };
  try {
    Header header;
    header.kv_dtype = static_cast<uint32_t>(executor_->limits().kv_dtype);
    header.origin = origin(*model_);
    header.page_bytes = executor_->page_bytes();
    header.n_tokens = copy.tokens.size();
    header.n_computed = static_cast<uint64_t>(copy.computed);
    header.first_page = static_cast<uint64_t>(copy.first_page);
    header.salt = copy.salt;
    header.checksum = header_checksum(header);
    const auto put = [&](const void* data, size_t size) {
      const uint64_t sum = checksum(data, size);
      if (size > 0) write(data, size);
      write(&sum, sizeof sum);
    };
    write(&header, sizeof header);
    put(copy.tokens.data(), copy.tokens.size() * sizeof(int32_t));
    std::vector<std::byte> page(executor_->page_bytes());
    for (const int32_t id : copy.pages) {
      if (id < 0) continue;
      {
        const ExecutorTurn turn(executor_mutex_, executor_waiters_);
        executor_->read_page(id, page);
      }
      put(page.data(), page.size());
    }
  } catch (...) {
    release();
    throw;
  }
  release();
}

std::shared_ptr<Sequence> Engine::restore(const Reader& read) {
  Header header;
  read(&header, sizeof header);
  if (header.magic != kMagic) bad_snapshot("the first bytes are not those of a dasan snapshot");
  if (header.version != kVersion)
    bad_snapshot("version " + std::to_string(header.version) + ", expected " +
                 std::to_string(kVersion));
  if (header.checksum != header_checksum(header)) bad_snapshot("the header is damaged");
  if (header.origin != origin(*model_))
    bad_snapshot("it was saved with another model, kind of device or version of dasan");
  if (header.kv_dtype != static_cast<uint32_t>(executor_->limits().kv_dtype) ||
      header.page_bytes != executor_->page_bytes())
    bad_snapshot("it was saved with another KV type or on another device");
  if (header.n_tokens > options_.max_context)
    bad_snapshot(std::to_string(header.n_tokens) + " tokens, expected at most " +
                 std::to_string(options_.max_context));
  if (header.n_computed > header.n_tokens)
    bad_snapshot(std::to_string(header.n_computed) + " tokens with KV, expected at most " +
                 std::to_string(header.n_tokens));
  if (header.first_page > 0 && header.first_page * kernels::kPageTokens >= header.n_computed)
    bad_snapshot(std::to_string(header.first_page) +
                 " pages let go, expected fewer than there are");
  const auto take = [&](void* data, size_t size, const char* what) {
    uint64_t sum = 0;
    if (size > 0) read(data, size);
    read(&sum, sizeof sum);
    if (sum != checksum(data, size)) bad_snapshot(std::string(what) + " are damaged");
  };
  auto sequence = std::make_shared<Sequence>();
  sequence->tokens.resize(header.n_tokens);
  take(sequence->tokens.data(), header.n_tokens * sizeof(int32_t), "the tokens");
  for (const int32_t token : sequence->tokens)
    if (token < 0 || token >= model_->spec().n_vocab)
      bad_snapshot("token " + std::to_string(token) + " is outside the vocabulary");
  const int32_t n_pages = pages_for_tokens(header.n_computed);
  const auto first_page = static_cast<int32_t>(header.first_page);
  std::vector<std::byte> page(executor_->page_bytes());
  sequence->salt = header.salt;
  sequence->foreign = true;
  sequence->busy = sequence->listed = true;  // not to be evicted before it is whole
  sequence->pages.reserve(static_cast<size_t>(n_pages));
  sequence->pages.assign(static_cast<size_t>(first_page), -1);
  sequence->first_page = first_page;
  try {
    {
      const std::lock_guard lock(mutex_);
      register_sequence(sequence);
    }
    for (int32_t i = first_page; i < n_pages; i++) {
      take(page.data(), page.size(), "the KV pages");
      int32_t id = 0;
      {
        const std::lock_guard lock(mutex_);
        while (kv_.available() == 0 && evict_idle()) {
        }
        id = kv_.acquire();
        sequence->pages.push_back(id);
      }
      const ExecutorTurn turn(executor_mutex_, executor_waiters_);
      executor_->write_page(id, page);
    }
    const std::lock_guard lock(mutex_);
    sequence->computed = static_cast<int32_t>(header.n_computed);
    sequence->busy = sequence->listed = false;
  } catch (...) {
    const std::lock_guard lock(mutex_);
    release_pages(*sequence);
    throw;
  }
  return sequence;
}

}  // namespace dasan
