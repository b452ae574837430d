/**
 * Which bytes of partly written sectors were written: a mask of 512 bits each. There are few as a rule
 * (file systems write whole sectors), so they are in memory; but a program that writes a byte here and
 * there can make any number of them, and then the further ones lie in a sparse file of the session
 * folder, at sector × 64. The file is never synced nor believed after a restart: the journal has all
 * masks, and replaying it makes them anew. Whether a sector has a mask at all is the dirty map's to know.
 */
import { Failure } from "../common/failure.js";
import { SECTOR_SIZE } from "../common/sizes.js";
import type { DiskFile, SessionFiles } from "./disk-file.js";

/** Masks in memory; some 250 bytes each. */
const IN_MEMORY = 65_536;
const MASK_BYTES = SECTOR_SIZE / 8;
const MASKS_FILE = "masks";

export interface SectorMasks {
  /** The mask of a sector that has one; it must not be changed. */
  get(sector: number): Uint32Array | undefined;
  /** @throws Failure ENOSPC, EIO; the sector's mask is then as it was. */
  set(sector: number, mask: Uint32Array): void;
  /** The sector needs none any more. */
  delete(sector: number): void;
}

/** An empty mask. */
export function newMask(): Uint32Array {
  return new Uint32Array(MASK_BYTES / 4);
}

/** For who only wants to know the sectors' states. */
export const NO_MASKS: SectorMasks = { get: () => undefined, set() {}, delete() {} };

export class SpillingMasks implements SectorMasks {
  readonly #files: SessionFiles | undefined;
  readonly #inMemory: number;
  readonly #memory = new Map<number, Uint32Array>();
  #file: DiskFile | undefined;

  /**
   * @param files where masks that do not fit go; absent, all of them are in memory.
   * @param inMemory masks at most (tests choose a small number).
   */
  constructor(files?: SessionFiles, inMemory = IN_MEMORY) {
    this.#files = files;
    this.#inMemory = files === undefined ? Number.POSITIVE_INFINITY : inMemory;
  }

  get(sector: number): Uint32Array | undefined {
    const known = this.#memory.get(sector);
    if (known !== undefined || this.#file === undefined) return known;
    const bytes = Buffer.alloc(MASK_BYTES);
    const read = this.#file.readAt(sector * MASK_BYTES, bytes);
    if (read < MASK_BYTES) {
      throw new Failure("EIO", "The session's masks file was changed by something else.");
    }
    return new Uint32Array(bytes.buffer, bytes.byteOffset, MASK_BYTES / 4);
  }

  set(sector: number, mask: Uint32Array): void {
    if (this.#memory.size < this.#inMemory || this.#memory.has(sector)) {
      this.#memory.set(sector, mask);
      return;
    }
    const bytes = new Uint8Array(mask.buffer, mask.byteOffset, MASK_BYTES);
    this.#spilled().writeAt(sector * MASK_BYTES, bytes);
  }

  delete(sector: number): void {
    this.#memory.delete(sector);
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #spilled(): DiskFile {
    if (this.#file === undefined) {
      const file = (this.#files as SessionFiles).open(MASKS_FILE);
      file.truncate(0);
      this.#file = file;
    }
    return this.#file;
  }
}
