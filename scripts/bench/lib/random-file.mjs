/** Data for uploads: random, so that no block is zeros, which one contender would leave out. */
import { randomFillSync } from "node:crypto";
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { MIB } from "./rig.mjs";

/** Writes `gib` GiB into a file, durably. @param flags as of open(2): "w", or "r+" for what is there. */
export function fillWithRandom(path, flags, gib) {
  const chunk = Buffer.alloc(MIB);
  const fd = openSync(path, flags);
  for (let i = 0; i < gib * 1024; i += 1) {
    // Fresh random data for each would take as long as the upload; the counter makes chunks differ.
    if (i % 64 === 0) randomFillSync(chunk);
    chunk.writeUInt32LE(i, 0);
    writeSync(fd, chunk, 0, MIB, i * MIB);
  }
  fsyncSync(fd);
  closeSync(fd);
}
