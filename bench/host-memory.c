/*
 * Takes so many MiB of memory, writes to each page and ends: in a virtual machine that gives free memory
 * back to its host, so much is at hand afterwards.
 *
 *     cc -O2 -o host-memory host-memory.c && ./host-memory MIB
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int count, char **words) {
  if (count != 2) return 2;
  const size_t bytes = (size_t)atol(words[1]) << 20;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
  if (mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED) return 0;
  perror("host-memory");
  return 1;
}
