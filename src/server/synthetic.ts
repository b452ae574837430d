/**
 * Synthetic snapshots: blocks that are computed instead of stored, so that a fully written 64 TiB
 * volume costs nothing to keep. A block is a pseudo-random template (one a seed) with two words
 * stamped into each sector: the block index modulo a prime and the sector's place in the block; the
 * sectors of the last 4 KiB also carry the whole block index. A block shown at a wrong offset
 * therefore differs in every sector (unless the two are a multiple of 4093 blocks apart, and then in
 * its last page), while its SHA-256 stays cheap: the first 508 KiB have only 4093 forms, whose hash
 * state is kept, and hashing on from there costs 4 KiB instead of 512.
 */
import { createHash, type Hash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { BLOCK_SIZE, BLOCKS_PER_GIB, SECTOR_SIZE, SECTORS_PER_BLOCK } from "../common/sizes.js";

/** What a synthetic snapshot holds. */
export interface SyntheticSpec {
  /** GiB, 1 to 65536. */
  readonly volumeSizeGiB: number;
  /** Share of blocks that are written, above 0 up to 1; which ones, the seed decides. */
  readonly written: number;
  /** 0 to 2^32 - 1. */
  readonly seed: number;
}

/** Prime, so that offsets wrong by any power of two show in every sector. */
const FORMS = 4093;
const WORDS_PER_SECTOR = SECTOR_SIZE / 4;
const TAIL_BYTES = 4096;
const TAIL_SECTOR = SECTORS_PER_BLOCK - TAIL_BYTES / SECTOR_SIZE;

/** Bounds: 8 templates (4 MiB) and two seeds' worth of hash states (about 1 KiB each). */
const templates = new LRUCache<number, Uint32Array>({ max: 8 });
const hashStates = new LRUCache<number, Hash>({ max: 2 * FORMS });

function hash32(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function templateOf(seed: number): Uint32Array {
  let words = templates.get(seed);
  if (words === undefined) {
    words = new Uint32Array(BLOCK_SIZE / 4);
    for (let i = 0; i < words.length; i++) words[i] = hash32(i ^ hash32(seed + 0x9e3779b9));
    templates.set(seed, words);
  }
  return words;
}

/** Whether the block is written. */
export function syntheticHas(spec: SyntheticSpec, blockIndex: number): boolean {
  if (blockIndex < 0 || blockIndex >= spec.volumeSizeGiB * BLOCKS_PER_GIB) return false;
  return hash32(blockIndex ^ hash32(spec.seed)) < spec.written * 2 ** 32;
}

/** The first written block in [from, end); `end` (or the volume's end) where there is none. */
export function nextSynthetic(spec: SyntheticSpec, from: number, end: number): number {
  const limit = Math.min(end, spec.volumeSizeGiB * BLOCKS_PER_GIB);
  if (spec.written >= 1) return Math.min(from, limit);
  let index = from;
  while (index < limit && !syntheticHas(spec, index)) index++;
  return Math.min(index, limit);
}

/**
 * Makes `words` (one block) the given block.
 * @param primed it held another block of the same seed, so only the stamps differ.
 */
export function fillSynthetic(
  seed: number,
  blockIndex: number,
  words: Uint32Array,
  primed: boolean,
): void {
  if (!primed) words.set(templateOf(seed));
  const form = blockIndex % FORMS;
  for (let sector = 0, word = 0; sector < SECTORS_PER_BLOCK; sector++, word += WORDS_PER_SECTOR) {
    words[word] = form;
    words[word + 1] = sector;
    if (sector >= TAIL_SECTOR) words[word + 2] = blockIndex;
  }
}

/** Raw SHA-256 of a block that fillSynthetic made. */
export function syntheticDigest(seed: number, blockIndex: number, block: Uint8Array): Buffer {
  const key = seed * FORMS + (blockIndex % FORMS);
  let state = hashStates.get(key);
  if (state === undefined) {
    state = createHash("sha256").update(block.subarray(0, BLOCK_SIZE - TAIL_BYTES));
    hashStates.set(key, state);
  }
  return state
    .copy()
    .update(block.subarray(BLOCK_SIZE - TAIL_BYTES))
    .digest();
}

/**
 * The volume's bytes at any range: what a correct reader of the synthetic snapshot must see, zeros
 * where a block is not written. @param offset, length bytes, inside the volume.
 */
export function syntheticBytes(spec: SyntheticSpec, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const words = new Uint32Array(BLOCK_SIZE / 4);
  const block = new Uint8Array(words.buffer);
  const last = Math.floor((offset + length - 1) / BLOCK_SIZE);
  let primed = false;
  for (let index = Math.floor(offset / BLOCK_SIZE); index <= last; index++) {
    if (!syntheticHas(spec, index)) continue;
    fillSynthetic(spec.seed, index, words, primed);
    primed = true;
    const start = Math.max(offset, index * BLOCK_SIZE);
    const end = Math.min(offset + length, (index + 1) * BLOCK_SIZE);
    bytes.set(block.subarray(start - index * BLOCK_SIZE, end - index * BLOCK_SIZE), start - offset);
  }
  return bytes;
}
