#ifndef COWHERD_SECTOR_CIPHER_H
#define COWHERD_SECTOR_CIPHER_H

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace cowherd {

/** What a sector's initialization vector is made of. The numbers are shared with src/native/sector-cipher.ts. */
enum class IvKind : int {
  kNone = 0,
  /** The lower 32 bits of the sector's number, little-endian. */
  kPlain = 1,
  /** All 64 bits of it. */
  kPlain64 = 2,
};

/** What a cipher is made of: names are OpenSSL's. */
struct SectorCipherKeys {
  std::string name;
  std::vector<uint8_t> key;
  IvKind iv = IvKind::kNone;
  /** ECB ciphers that make the vector, one after the other: that of ESSIV, that of the tweak of XTS. */
  std::vector<std::pair<std::string, std::vector<uint8_t>>> ivCiphers;
  /** Whether `name` is the ECB cipher of XTS, whose tweaks are the vectors. */
  bool isXts = false;
};

/**
 * A cipher of disks: each sector of 512 bytes is enciphered by itself, with a vector made of its number. OpenSSL is
 * the node executable's. Any thread may use one at any time; each use has a context of its own.
 */
class SectorCipher {
 public:
  /** Whether this program carries OpenSSL for us to use. */
  static bool available();
  /** @returns null where the program does not know the cipher, or not with such a key */
  static std::shared_ptr<SectorCipher> create(SectorCipherKeys keys);
  ~SectorCipher();

  /**
   * Enciphers or deciphers whole sectors; output may be the input.
   *
   * @param sector number of the first
   * @returns 0, or a negated errno
   */
  int64_t run(bool encrypts, const uint8_t* input, uint8_t* output, size_t length, uint64_t sector);

 private:
  struct Context;
  explicit SectorCipher(SectorCipherKeys keys);
  std::unique_ptr<Context> take(bool encrypts);
  void giveBack(bool encrypts, std::unique_ptr<Context> context);

  SectorCipherKeys keys_;
  std::mutex mutex_;
  /** Contexts that nobody uses: of deciphering, and of enciphering. */
  std::vector<std::unique_ptr<Context>> idle_[2];
};

void exportSectorCipher(Napi::Object exports);

/** The cipher of an object that `createSectorCipher` gave; null, with an exception, for any other. */
std::shared_ptr<SectorCipher> sectorCipherOf(napi_env env, napi_value object);

}  // namespace cowherd

#endif
