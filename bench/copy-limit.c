/*
 * What a machine gives for the work of a conversion: two threads copy the data of a sparse file to
 * consecutive places of a new one, 1 MiB at a time; one reads and looks for zeroes while the other writes,
 * and they take turns at writing. The target's blocks are reserved beforehand. It prints nothing.
 *
 *     cc -O2 -pthread -o copy-limit copy-limit.c && ./copy-limit SOURCE TARGET
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kPieceBytes = 1 << 20, kBlockBytes = 4096 };

struct piece {
  off_t from;
  size_t length;
  off_t to;
};

static struct piece *pieces;
static size_t count;
static size_t next;
static size_t turn;
static int source;
static int target;
static volatile size_t zero_blocks;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;

static int is_zero(const char *bytes, size_t length) {
  return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static void fail_unless(int succeeded) {
  if (!succeeded) _exit(1);
}

static void cut(off_t size) {
  pieces = malloc((size / kPieceBytes + 1) * 2 * sizeof(*pieces));
  off_t to = 0;
  for (off_t start = 0; start < size;) {
    const off_t data = lseek(source, start, SEEK_DATA);
    if (data < 0) break;
    const off_t hole = lseek(source, data, SEEK_HOLE);
    for (off_t at = data; at < hole; at += kPieceBytes) {
      const size_t length = hole - at < kPieceBytes ? (size_t)(hole - at) : kPieceBytes;
      pieces[count++] = (struct piece){at, length, to};
      to += (off_t)length;
    }
    start = hole;
  }
  if (to > 0) fail_unless(fallocate(target, 0, 0, to) == 0);
}

static void *copy(void *unused) {
  (void)unused;
  char *const bytes = aligned_alloc(kBlockBytes, kPieceBytes);
  for (;;) {
    pthread_mutex_lock(&mutex);
    const size_t index = next++;
    pthread_mutex_unlock(&mutex);
    if (index >= count) break;
    const struct piece piece = pieces[index];
    fail_unless(pread(source, bytes, piece.length, piece.from) == (ssize_t)piece.length);
    for (size_t at = 0; at + kBlockBytes <= piece.length; at += kBlockBytes) {
      if (is_zero(bytes + at, kBlockBytes)) zero_blocks += 1;
    }
    pthread_mutex_lock(&mutex);
    while (turn != index) pthread_cond_wait(&turned, &mutex);
    pthread_mutex_unlock(&mutex);
    fail_unless(pwrite(target, bytes, piece.length, piece.to) == (ssize_t)piece.length);
    pthread_mutex_lock(&mutex);
    turn += 1;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&mutex);
  }
  return NULL;
}

int main(int argc, char **argv) {
  fail_unless(argc == 3);
  source = open(argv[1], O_RDONLY);
  target = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0644);
  fail_unless(source >= 0 && target >= 0);
  cut(lseek(source, 0, SEEK_END));
  pthread_t threads[2];
  for (int index = 0; index < 2; index++) pthread_create(&threads[index], NULL, copy, NULL);
  for (int index = 0; index < 2; index++) pthread_join(threads[index], NULL);
  return 0;
}
