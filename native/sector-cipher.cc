#include "sector-cipher.h"

#include <dlfcn.h>
#include <errno.h>

#include <algorithm>
#include <cstring>

namespace cowherd {

namespace {

constexpr size_t kSectorBytes = 512;
constexpr size_t kBlockBytes = 16;
/** Sectors whose vectors are made at once: what they hold stays in the processor's nearest cache. */
constexpr size_t kBatchSectors = 8;

/** OpenSSL as the node executable carries it, found when first needed. */
struct OpenSsl {
  void* (*newContext)();
  void (*freeContext)(void*);
  const void* (*cipherByName)(const char*);
  int (*initialize)(void*, const void*, void*, const uint8_t*, const uint8_t*, int);
  int (*update)(void*, uint8_t*, int*, const uint8_t*, int);
  int (*setPadding)(void*, int);
  int (*keyLength)(const void*);
  void (*cleanse)(void*, size_t);
  bool complete;

  template <typename Function>
  static bool find(Function* function, const char* name) {
    void* const symbol = ::dlsym(RTLD_DEFAULT, name);
    *function = reinterpret_cast<Function>(symbol);
    return symbol != nullptr;
  }

  OpenSsl()
      : complete(find(&newContext, "EVP_CIPHER_CTX_new") &&
                 find(&freeContext, "EVP_CIPHER_CTX_free") &&
                 find(&cipherByName, "EVP_get_cipherbyname") &&
                 find(&initialize, "EVP_CipherInit_ex") && find(&update, "EVP_CipherUpdate") &&
                 find(&setPadding, "EVP_CIPHER_CTX_set_padding") &&
                 (find(&keyLength, "EVP_CIPHER_get_key_length") ||
                  find(&keyLength, "EVP_CIPHER_key_length")) &&
                 find(&cleanse, "OPENSSL_cleanse")) {}
};

const OpenSsl& openSsl() {
  static const OpenSsl library;
  return library;
}

/** One key schedule, in one direction. */
class Schedule {
 public:
  Schedule() = default;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;
  ~Schedule() {
    if (context_ != nullptr) openSsl().freeContext(context_);
  }

  bool open(const std::string& name, const std::vector<uint8_t>& key, bool encrypts) {
    const OpenSsl& library = openSsl();
    const void* const cipher = library.cipherByName(name.c_str());
    if (cipher == nullptr || library.keyLength(cipher) != static_cast<int>(key.size())) return false;
    context_ = library.newContext();
    return context_ != nullptr &&
           library.initialize(context_, cipher, nullptr, key.data(), nullptr, encrypts ? 1 : 0) == 1 &&
           library.setPadding(context_, 0) == 1;
  }
  bool setVector(const uint8_t* vector) {
    return openSsl().initialize(context_, nullptr, nullptr, nullptr, vector, -1) == 1;
  }
  bool run(const uint8_t* input, uint8_t* output, size_t length) {
    int done = 0;
    return openSsl().update(context_, output, &done, input, static_cast<int>(length)) == 1 &&
           static_cast<size_t>(done) == length;
  }

 private:
  void* context_ = nullptr;
};

/** A block as processors hold it in one register. */
typedef uint64_t Block __attribute__((vector_size(kBlockBytes)));
typedef int32_t Words __attribute__((vector_size(kBlockBytes)));
/** The same anywhere in memory. */
typedef Block StoredBlock __attribute__((aligned(1), may_alias));

constexpr size_t kSectorBlocks = kSectorBytes / kBlockBytes;

/** A tweak times x in GF(2^128), little-endian. */
inline Block timesX(Block tweak) {
  const Words signs = reinterpret_cast<Words>(tweak) >> 31;
  const Words carries = __builtin_shuffle(signs, Words{3, 3, 1, 1}) & Words{0x87, 0, 1, 0};
  return (tweak << 1) ^ reinterpret_cast<Block>(carries);
}

/**
 * The tweaks of the blocks of sectors, of which each is made of the one before. Of several sectors side by side, as
 * each step waits for the last one.
 */
void spreadTweaks(const Block* vectors, Block* tweaks) {
  Block next[kBatchSectors];
  for (size_t sector = 0; sector < kBatchSectors; sector += 1) next[sector] = vectors[sector];
  for (size_t block = 0; block < kSectorBlocks; block += 1) {
    for (size_t sector = 0; sector < kBatchSectors; sector += 1) {
      tweaks[sector * kSectorBlocks + block] = next[sector];
      next[sector] = timesX(next[sector]);
    }
  }
}

void exclusiveOr(const uint8_t* input, const Block* tweaks, uint8_t* output, size_t length) {
  const StoredBlock* const from = reinterpret_cast<const StoredBlock*>(input);
  StoredBlock* const to = reinterpret_cast<StoredBlock*>(output);
  for (size_t block = 0; block < length / kBlockBytes; block += 1) {
    to[block] = from[block] ^ tweaks[block];
  }
}

using Owner = std::shared_ptr<SectorCipher>;
constexpr napi_type_tag kTag = {0x636f776865726463, 0x7365637463697068};

bool bytesOf(napi_env env, napi_value value, uint8_t** bytes, size_t* length) {
  void* memory = nullptr;
  if (napi_get_typedarray_info(env, value, nullptr, length, &memory, nullptr, nullptr) != napi_ok) {
    napi_throw_type_error(env, nullptr, "a typed array is expected");
    return false;
  }
  *bytes = static_cast<uint8_t*>(memory);
  return true;
}

bool textOf(napi_env env, napi_value value, std::string* text) {
  char bytes[32];
  size_t length = 0;
  if (napi_get_value_string_latin1(env, value, bytes, sizeof(bytes), &length) != napi_ok) return false;
  text->assign(bytes, length);
  return true;
}

/** (encrypts, input, output, sector) => 0 | -errno */
napi_value runCipher(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4] = {};
  napi_value self = nullptr;
  napi_get_cb_info(env, info, &count, arguments, &self, nullptr);
  const Owner cipher = sectorCipherOf(env, self);
  if (cipher == nullptr) return nullptr;
  bool encrypts = false;
  uint8_t* input = nullptr;
  uint8_t* output = nullptr;
  size_t length = 0;
  size_t room = 0;
  double sector = 0;
  napi_get_value_bool(env, arguments[0], &encrypts);
  if (!bytesOf(env, arguments[1], &input, &length) || !bytesOf(env, arguments[2], &output, &room)) {
    return nullptr;
  }
  napi_get_value_double(env, arguments[3], &sector);
  const int64_t result = room < length ? -EINVAL
                                       : cipher->run(encrypts, input, output, length,
                                                     static_cast<uint64_t>(sector));
  napi_value value = nullptr;
  napi_create_int32(env, static_cast<int32_t>(result), &value);
  return value;
}

/** (name, key, iv, isXts, ...(name, key) of ciphers that make vectors) => cipher | undefined */
napi_value createSectorCipher(napi_env env, napi_callback_info info) {
  size_t count = 8;
  napi_value arguments[8] = {};
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  SectorCipherKeys keys;
  uint8_t* bytes = nullptr;
  size_t length = 0;
  int32_t iv = 0;
  if (!textOf(env, arguments[0], &keys.name) || !bytesOf(env, arguments[1], &bytes, &length)) {
    return nullptr;
  }
  keys.key.assign(bytes, bytes + length);
  napi_get_value_int32(env, arguments[2], &iv);
  keys.iv = static_cast<IvKind>(iv);
  napi_get_value_bool(env, arguments[3], &keys.isXts);
  for (size_t index = 4; index + 1 < std::min<size_t>(count, 8); index += 2) {
    std::string name;
    if (!textOf(env, arguments[index], &name) ||
        !bytesOf(env, arguments[index + 1], &bytes, &length)) {
      return nullptr;
    }
    keys.ivCiphers.emplace_back(name, std::vector<uint8_t>(bytes, bytes + length));
  }
  Owner cipher = SectorCipher::create(std::move(keys));
  napi_value object = nullptr;
  if (cipher == nullptr || napi_create_object(env, &object) != napi_ok) return nullptr;
  const napi_property_descriptor property = {
      "run", nullptr, runCipher, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, object, 1, &property);
  Owner* const owner = new Owner(std::move(cipher));
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<Owner*>(data); };
  if (napi_wrap(env, object, owner, finalize, nullptr, nullptr) != napi_ok) {
    delete owner;
    return nullptr;
  }
  napi_type_tag_object(env, object, &kTag);
  return object;
}

}  // namespace

/** Key schedules of one use, and what it makes of sectors' numbers meanwhile. */
struct SectorCipher::Context {
  Schedule data;
  std::unique_ptr<Schedule[]> vectors;
  Block batch[kBatchSectors];
  Block tweaks[kBatchSectors * kSectorBlocks];
};

bool SectorCipher::available() { return openSsl().complete; }

std::shared_ptr<SectorCipher> SectorCipher::create(SectorCipherKeys keys) {
  if (!available()) return nullptr;
  std::shared_ptr<SectorCipher> cipher(new SectorCipher(std::move(keys)));
  std::unique_ptr<Context> first = cipher->take(true);
  if (first == nullptr) return nullptr;
  cipher->giveBack(true, std::move(first));
  return cipher;
}

SectorCipher::SectorCipher(SectorCipherKeys keys) : keys_(std::move(keys)) {}

SectorCipher::~SectorCipher() {
  openSsl().cleanse(keys_.key.data(), keys_.key.size());
  for (auto& each : keys_.ivCiphers) openSsl().cleanse(each.second.data(), each.second.size());
}

std::unique_ptr<SectorCipher::Context> SectorCipher::take(bool encrypts) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::unique_ptr<Context>>& idle = idle_[encrypts ? 1 : 0];
    if (!idle.empty()) {
      std::unique_ptr<Context> context = std::move(idle.back());
      idle.pop_back();
      return context;
    }
  }
  std::unique_ptr<Context> context(new Context());
  if (!context->data.open(keys_.name, keys_.key, encrypts)) return nullptr;
  const size_t count = keys_.ivCiphers.size();
  context->vectors.reset(new Schedule[count]);
  for (size_t index = 0; index < count; index += 1) {
    const auto& [name, key] = keys_.ivCiphers[index];
    if (!context->vectors[index].open(name, key, true)) return nullptr;
  }
  return context;
}

void SectorCipher::giveBack(bool encrypts, std::unique_ptr<Context> context) {
  std::lock_guard<std::mutex> lock(mutex_);
  idle_[encrypts ? 1 : 0].push_back(std::move(context));
}

int64_t SectorCipher::run(bool encrypts, const uint8_t* input, uint8_t* output, size_t length,
                          uint64_t sector) {
  if (length % kSectorBytes != 0) return -EINVAL;
  std::unique_ptr<Context> context = take(encrypts);
  if (context == nullptr) return -ENOMEM;
  bool succeeds = true;
  for (size_t done = 0; done < length && succeeds;) {
    const size_t part = std::min(length - done, kBatchSectors * kSectorBytes);
    const size_t sectors = part / kSectorBytes;
    uint8_t* const vectors = reinterpret_cast<uint8_t*>(context->batch);
    const size_t vectorBytes = sectors * kBlockBytes;
    if (keys_.iv != IvKind::kNone) {
      std::memset(vectors, 0, vectorBytes);
      for (size_t index = 0; index < sectors; index += 1) {
        uint64_t number = sector + done / kSectorBytes + index;
        if (keys_.iv == IvKind::kPlain) number &= 0xffffffff;
        std::memcpy(vectors + index * kBlockBytes, &number, sizeof(number));
      }
      for (size_t index = 0; index < keys_.ivCiphers.size(); index += 1) {
        succeeds = succeeds && context->vectors[index].run(vectors, vectors, vectorBytes);
      }
    }
    const uint8_t* const from = input + done;
    uint8_t* const to = output + done;
    if (keys_.isXts) {
      spreadTweaks(context->batch, context->tweaks);
      exclusiveOr(from, context->tweaks, to, part);
      succeeds = succeeds && context->data.run(to, to, part);
      exclusiveOr(to, context->tweaks, to, part);
    } else if (keys_.iv == IvKind::kNone) {
      succeeds = succeeds && context->data.run(from, to, part);
    } else {
      for (size_t index = 0; index < sectors && succeeds; index += 1) {
        const size_t at = index * kSectorBytes;
        succeeds = context->data.setVector(vectors + index * kBlockBytes) &&
                   context->data.run(from + at, to + at, kSectorBytes);
      }
    }
    done += part;
  }
  giveBack(encrypts, std::move(context));
  return succeeds ? 0 : -EIO;
}

void exportSectorCipher(Napi::Object exports) {
  const napi_property_descriptor property = {"createSectorCipher", nullptr, createSectorCipher,
                                             nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(exports.Env(), exports, 1, &property);
  exports["hasOpenSsl"] = SectorCipher::available();
}

std::shared_ptr<SectorCipher> sectorCipherOf(napi_env env, napi_value object) {
  bool tagged = false;
  void* owner = nullptr;
  if (napi_check_object_type_tag(env, object, &kTag, &tagged) != napi_ok || !tagged ||
      napi_unwrap(env, object, &owner) != napi_ok) {
    napi_throw_type_error(env, nullptr, "a cipher is expected");
    return nullptr;
  }
  return *static_cast<Owner*>(owner);
}

}  // namespace cowherd
