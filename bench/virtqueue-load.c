/*
 * A driver of a vhost-user block device, without a guest: random requests of 4 KiB through several virtqueues,
 * each on a thread of its own, for a number of seconds.
 *
 *     virtqueue-load SOCKET read|write QUEUES DEPTH SECONDS
 *
 * Prints requests per second, and the median and the 99th percentile of what one took, in microseconds.
 * Split rings with VIRTIO_F_EVENT_IDX (virtio 1.2, section 2.7), messages of QEMU's vhost-user.rst.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { ring_size = 128, block_bytes = 4096, most_samples = 1 << 20 };
enum { get_features = 1, set_features, set_owner, set_vring_num = 8, set_vring_addr, set_vring_base,
       set_vring_kick = 12, set_vring_call, get_protocol_features = 15, set_protocol_features,
       set_vring_enable = 18, get_config = 24, add_mem_reg = 37, set_mem_table = 5 };

struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
struct used_entry { uint32_t id, length; };
/* As it lies in shared memory, for one queue. */
struct queue_memory {
  struct descriptor table[ring_size];
  struct { uint16_t flags; _Atomic uint16_t index; uint16_t ring[ring_size]; _Atomic uint16_t used_event; } available;
  _Alignas(64) struct { uint16_t flags; _Atomic uint16_t index; struct used_entry ring[ring_size];
                        _Atomic uint16_t available_event; } used;
  _Alignas(4096) struct { uint32_t type, reserved; uint64_t sector; } head[ring_size];
  uint8_t status[ring_size];
  _Alignas(4096) uint8_t data[ring_size][block_bytes];
};
struct queue {
  struct queue_memory *memory;
  int kick, call, is_write, depth;
  uint64_t random, done, blocks, begun[ring_size];
  uint32_t *samples;
  size_t sample_count;
  pthread_t thread;
};

static int connection;
static uint8_t *memory;
static _Atomic int is_over;

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void tell(uint32_t request, const void *payload, uint32_t size, int descriptor) {
  uint32_t head[3] = {request, 1, size};
  struct iovec parts[2] = {{head, sizeof head}, {(void *)payload, size}};
  union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control;
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  if (descriptor >= 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = sizeof control.bytes;
    control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
  }
  if (sendmsg(connection, &message, 0) != (ssize_t)(sizeof head + size)) fail("send");
}

static void answer(void *into, uint32_t size) {
  uint32_t head[3];
  if (recv(connection, head, sizeof head, MSG_WAITALL) != sizeof head || head[2] != size) fail("answer");
  if (recv(connection, into, size, MSG_WAITALL) != (ssize_t)size) fail("answer");
}

static uint64_t ask(uint32_t request) {
  uint64_t value;
  tell(request, NULL, 0, -1);
  answer(&value, sizeof value);
  return value;
}

static void submit(struct queue *queue, uint16_t slot) {
  struct queue_memory *m = queue->memory;
  queue->random ^= queue->random << 13;
  queue->random ^= queue->random >> 7;
  queue->random ^= queue->random << 17;
  m->head[slot].type = (uint32_t)queue->is_write;
  m->head[slot].sector = queue->random % queue->blocks * (block_bytes / 512);
  uint16_t index = atomic_load_explicit(&m->available.index, memory_order_relaxed);
  m->available.ring[index % ring_size] = (uint16_t)(3 * slot);
  queue->begun[slot] = now();
  atomic_store_explicit(&m->available.index, (uint16_t)(index + 1), memory_order_release);
}

static void kick(struct queue *queue, uint16_t before) {
  struct queue_memory *m = queue->memory;
  atomic_thread_fence(memory_order_seq_cst);
  uint16_t index = atomic_load(&m->available.index), event = atomic_load(&m->used.available_event);
  if ((uint16_t)(index - event - 1) < (uint16_t)(index - before) &&
      write(queue->kick, &(uint64_t){1}, 8) != 8) fail("kick");
}

static void *run(void *argument) {
  struct queue *queue = argument;
  struct queue_memory *m = queue->memory;
  uint16_t seen = 0;
  int waiting = queue->depth;
  for (uint16_t slot = 0; slot < queue->depth; slot++) submit(queue, slot);
  kick(queue, 0);
  while (waiting > 0) {
    if (atomic_load_explicit(&m->used.index, memory_order_acquire) == seen) {
      atomic_store(&m->available.used_event, seen);
      atomic_thread_fence(memory_order_seq_cst);
      /* Whoever tells may have made it one that is not waited for. */
      struct pollfd call = {queue->call, POLLIN, 0};
      uint64_t told;
      if (atomic_load(&m->used.index) != seen) continue;
      if (poll(&call, 1, -1) < 0 || (read(queue->call, &told, 8) != 8 && errno != EAGAIN)) fail("call");
      continue;
    }
    uint16_t before = atomic_load(&m->available.index), used = atomic_load(&m->used.index);
    uint64_t time = now();
    for (; seen != used; seen++) {
      uint16_t slot = (uint16_t)(m->used.ring[seen % ring_size].id / 3);
      if (m->status[slot] != 0) { fprintf(stderr, "a request failed\n"); exit(1); }
      queue->done++;
      if (queue->sample_count < most_samples)
        queue->samples[queue->sample_count++] = (uint32_t)(time - queue->begun[slot]);
      waiting--;
      if (!is_over) { submit(queue, slot); waiting++; }
    }
    kick(queue, before);
  }
  return NULL;
}

static int by_size(const void *one, const void *other) {
  uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
  return a < b ? -1 : a > b;
}

int main(int count, char **words) {
  if (count != 6) { fprintf(stderr, "usage: virtqueue-load SOCKET read|write QUEUES DEPTH SECONDS\n"); return 2; }
  int queues = atoi(words[3]), depth = atoi(words[4]), seconds = atoi(words[5]);
  if (queues < 1 || queues > 16 || depth < 1 || depth > ring_size / 3) return 2;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, words[1], sizeof address.sun_path - 1);
  connection = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(connection, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  size_t bytes = (size_t)queues * sizeof(struct queue_memory);
  int file = memfd_create("guest", 0);
  if (file < 0 || ftruncate(file, (off_t)bytes) != 0) fail("memory");
  memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  uint64_t features = ask(get_features) & (1ull << 32 | 1ull << 30 | 1ull << 29 | 1ull << 9 | 1ull << 11);
  uint64_t protocol = ask(get_protocol_features) & (1ull << 0 | 1ull << 9);
  tell(set_protocol_features, &protocol, 8, -1);
  tell(set_owner, NULL, 0, -1);
  tell(set_features, &features, 8, -1);
  struct { uint32_t offset, size, flags; uint64_t capacity; } __attribute__((packed)) config = {0, 8, 0, 0};
  tell(get_config, &config, sizeof config, -1);
  answer(&config, sizeof config);
  struct { uint32_t count, padding; uint64_t guest, size, user, offset; } table = {
    1, 0, 0x100000, bytes, (uint64_t)(uintptr_t)memory, 0};
  tell(set_mem_table, &table, sizeof table, file);
  struct queue *all = calloc((size_t)queues, sizeof *all);
  for (int i = 0; i < queues; i++) {
    struct queue_memory *m = (struct queue_memory *)(memory + (size_t)i * sizeof *m);
    uint64_t guest = 0x100000 + (uint64_t)((uint8_t *)m - memory);
    all[i] = (struct queue){.memory = m, .kick = eventfd(0, 0), .call = eventfd(0, 0),
      .is_write = words[2][0] == 'w', .depth = depth, .random = 88172645463325252ull + (uint64_t)i * 7919,
      .blocks = config.capacity * 512 / block_bytes, .samples = malloc(most_samples * sizeof(uint32_t))};
    for (int slot = 0; slot < ring_size / 3; slot++) {
      uint16_t first = (uint16_t)(3 * slot), isRead = all[i].is_write ? 0 : 2;
      m->table[first] = (struct descriptor){guest + ((uint8_t *)&m->head[slot] - (uint8_t *)m), 16, 1, first + 1};
      m->table[first + 1] = (struct descriptor){guest + (uint64_t)(m->data[slot] - (uint8_t *)m), block_bytes,
        (uint16_t)(1 | isRead), first + 2};
      m->table[first + 2] = (struct descriptor){guest + (uint64_t)(&m->status[slot] - (uint8_t *)m), 1, 2, 0};
      memset(m->data[slot], slot + 1, block_bytes);
    }
    uint32_t size[2] = {(uint32_t)i, ring_size}, base[2] = {(uint32_t)i, 0}, enable[2] = {(uint32_t)i, 1};
    struct { uint32_t index, flags; uint64_t table, used, available, log; } place = {
      (uint32_t)i, 0, (uint64_t)(uintptr_t)m->table, (uint64_t)(uintptr_t)&m->used,
      (uint64_t)(uintptr_t)&m->available, 0};
    uint64_t index = (uint64_t)i;
    tell(set_vring_num, size, 8, -1);
    tell(set_vring_base, base, 8, -1);
    tell(set_vring_addr, &place, sizeof place, -1);
    tell(set_vring_call, &index, 8, all[i].call);
    tell(set_vring_kick, &index, 8, all[i].kick);
    tell(set_vring_enable, enable, 8, -1);
  }
  ask(get_features);
  uint64_t begun = now();
  for (int i = 0; i < queues; i++) pthread_create(&all[i].thread, NULL, run, &all[i]);
  sleep((unsigned)seconds);
  is_over = 1;
  uint64_t done = 0;
  size_t total = 0;
  for (int i = 0; i < queues; i++) { pthread_join(all[i].thread, NULL); done += all[i].done; total += all[i].sample_count; }
  double taken = (double)(now() - begun) / 1e9;
  uint32_t *samples = malloc(total * sizeof *samples);
  size_t at = 0;
  for (int i = 0; i < queues; i++) {
    memcpy(samples + at, all[i].samples, all[i].sample_count * sizeof *samples);
    at += all[i].sample_count;
  }
  qsort(samples, total, sizeof *samples, by_size);
  printf("%.0f %.1f %.1f\n", (double)done / taken, samples[total / 2] / 1e3, samples[total * 99 / 100] / 1e3);
  return 0;
}
