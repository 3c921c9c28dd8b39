/* Kernels for another processor, run under its emulator: reads memory and a program, and writes what it left there.

   On standard input, in numbers of 64 bits: how many instructions, how many blocks of memory, whether denormals are 0;
   of each block where it was and how many bytes; then the instructions, and then the blocks' contents. Addresses in
   instructions are those of the blocks there. Back come the result of the run, and the blocks' contents. */
#include <stdio.h>
#include <stdlib.h>

#include "op.h"

int64_t astrape_run(const Op *ops, int64_t count);
int64_t astrape_push(const Op *ops, int64_t count, const void *spans, int64_t many);
void astrape_form(int64_t *form);

typedef struct {
    int64_t was, bytes;
} Block;

static void take(void *to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) exit(0);
}

static void give(const void *from, size_t bytes) {
    if (fwrite(from, 1, bytes, stdout) != bytes) exit(1);
}

int main(void) {
    int64_t form[4];
    astrape_form(form);
    give(form, sizeof form);
    fflush(stdout);
    for (;;) {
        int64_t head[3];
        take(head, sizeof head);
        Block *blocks = malloc(sizeof *blocks * (size_t)head[1]);
        Op *ops = malloc(sizeof *ops * (size_t)head[0]);
        char **now = malloc(sizeof *now * (size_t)head[1]);
        take(blocks, sizeof *blocks * (size_t)head[1]);
        take(ops, sizeof *ops * (size_t)head[0]);
        for (int64_t i = 0; i < head[1]; i++) {
            now[i] = malloc((size_t)blocks[i].bytes);
            take(now[i], (size_t)blocks[i].bytes);
        }
        for (int64_t o = 0; o < head[0]; o++)
            for (int a = 0; a < 4; a++) {
                const int64_t at = (int64_t)ops[o].at[a];
                if (!at) continue;
                int64_t i = 0;
                while (i < head[1] && (at < blocks[i].was || at >= blocks[i].was + blocks[i].bytes)) i++;
                if (i == head[1]) exit(2);
                ops[o].at[a] = now[i] + (at - blocks[i].was);
            }
        const int64_t failed = head[2] ? astrape_push(ops, head[0], 0, 0) : astrape_run(ops, head[0]);
        give(&failed, sizeof failed);
        for (int64_t i = 0; i < head[1]; i++) {
            give(now[i], (size_t)blocks[i].bytes);
            free(now[i]);
        }
        fflush(stdout);
        free(blocks), free(ops), free(now);
    }
}
