/** Against the C structures themselves: the same values, laid out by the compiler's own header. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Attributes } from "../../../src/filesystem/filesystem.js";
import {
  encodeAttributes,
  encodeDirectory,
  encodeEntry,
  encodeInit,
  encodeOpen,
  encodeOpenDirectory,
  encodeStatfs,
} from "../../../src/fuse/kernel/replies.js";

const SIZE = 64 * 2 ** 40;
const attributes: Attributes = {
  inode: 2,
  kind: "file",
  mode: 0o400,
  uid: 1000,
  gid: 100,
  size: SIZE,
  sectors: SIZE / 512 - 1,
  links: 1,
  modifiedAt: 1_700_000_000.5,
};

const C = `
#include <linux/fuse.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
static void out(const void *p, int n) { const unsigned char *b = p; while (n--) printf("%02x", *b++); putchar('\\n'); }
#define ATTR { .ino = 2, .size = 64ULL << 40, .blocks = (64ULL << 31) - 1, .atime = 1700000000, \\
  .mtime = 1700000000, .ctime = 1700000000, .atimensec = 500000000, .mtimensec = 500000000, \\
  .ctimensec = 500000000, .mode = 0100400, .nlink = 1, .uid = 1000, .gid = 100, .blksize = 4096 }
int main(void) {
  struct fuse_attr_out a = { .attr_valid = 3600, .attr = ATTR }; out(&a, sizeof a);
  struct fuse_entry_out e = { .nodeid = 2, .entry_valid = 3600, .attr_valid = 3600, .attr = ATTR }; out(&e, sizeof e);
  struct fuse_open_out o = { .fh = 5000000000ULL, .open_flags = FOPEN_KEEP_CACHE }; out(&o, sizeof o);
  struct fuse_open_out d = { .open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR }; out(&d, sizeof d);
  struct fuse_statfs_out s = { .st = { .blocks = 64ULL << 28, .files = 2, .bsize = 4096, .namelen = 255, .frsize = 4096 } }; out(&s, sizeof s);
  struct fuse_init_out i = { .major = 7, .minor = 36, .max_readahead = 131072,
    .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_MAX_PAGES,
    .max_background = 64, .congestion_threshold = 48, .max_write = 1 << 20, .time_gran = 1, .max_pages = 256 }; out(&i, sizeof i);
  char b[400]; memset(b, 0, sizeof b);
  struct fuse_dirent *p = (void *)b;
  p->ino = 2; p->off = 2; p->namelen = 5; p->type = 8; memcpy(p->name, "a.img", 5);
  p = (void *)(b + FUSE_DIRENT_SIZE(p)); p->ino = 3; p->off = 3; p->namelen = 9; p->type = 8; memcpy(p->name, "b.img.raw", 9);
  out(b, (char *)p + FUSE_DIRENT_SIZE(p) - b);
  memset(b, 0, sizeof b);
  struct fuse_direntplus *q = (void *)b; q->entry_out = e;
  q->dirent.ino = 2; q->dirent.off = 2; q->dirent.namelen = 5; q->dirent.type = 8; memcpy(q->dirent.name, "a.img", 5);
  out(b, FUSE_DIRENTPLUS_SIZE(q));
}`;

function compiled(): string[] {
  const folder = mkdtempSync(join(tmpdir(), "ebsmount-fuse-"));
  try {
    writeFileSync(join(folder, "layout.c"), C);
    execFileSync("cc", ["-o", join(folder, "layout"), join(folder, "layout.c")]);
    return execFileSync(join(folder, "layout")).toString().trim().split("\n");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("replies", () => {
  it("have the bytes that C gives the structures of <linux/fuse.h>", () => {
    const target = Buffer.alloc(4096, 0xee);
    const words = new Uint32Array(target.buffer, target.byteOffset, 1024);
    const hex = (length: number) => target.toString("hex", 0, length);
    const request = new Uint32Array(26);
    request.set([7, 36, 131_072, 0xffff_ffff & ~(1 << 18)], 10);
    const a = { name: "a.img", inode: 2, kind: "file" as const };
    const dot = { name: ".", inode: 1, kind: "directory" as const };
    const b = { name: "b.img.raw", inode: 3, kind: "file" as const };
    const ours = [
      hex(encodeAttributes(words, attributes, 3600)),
      hex(encodeEntry(words, attributes, 3600)),
      hex(encodeOpen(words, 5_000_000_000, true)),
      hex(encodeOpenDirectory(words)),
      hex(
        encodeStatfs(words, {
          blockSize: 4096,
          blocks: SIZE / 4096,
          freeBlocks: 0,
          files: 2,
          nameLength: 255,
        }),
      ),
      hex(encodeInit(words, request)),
      hex(encodeDirectory(target, 4096, [dot, a, b], 1, 3600)),
      hex(encodeDirectory(target, 4096, [dot, { ...a, attributes }], 1, 3600)),
    ];
    expect(ours).toEqual(compiled());
  });

  it("cut a listing between entries, never inside one", () => {
    const target = Buffer.alloc(4096);
    const entries = Array.from({ length: 50 }, (_, i) => ({
      name: `snap-${"0".repeat(i)}.img`,
      inode: i + 2,
      kind: "file" as const,
    }));
    for (const limit of [0, 24, 40, 100, 333, 4096]) {
      let first = 0;
      const names: string[] = [];
      for (let turn = 0; turn < 60 && first < entries.length; turn += 1) {
        const used = encodeDirectory(target, limit, entries, first, 1);
        expect(used).toBeLessThanOrEqual(limit);
        for (let at = 0; at < used; ) {
          const length = target.readUInt32LE(at + 16);
          names.push(target.toString("utf8", at + 24, at + 24 + length));
          first = target.readUInt32LE(at + 8);
          at += (24 + length + 7) & ~7;
        }
        if (used === 0) break;
      }
      expect(names).toEqual(entries.slice(0, first).map((entry) => entry.name));
    }
  });
});
