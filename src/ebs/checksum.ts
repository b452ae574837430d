/**
 * The two checksums of the EBS direct APIs: SHA-256 of a block, and the LINEAR aggregate of a
 * snapshot, which is the SHA-256 over the raw digests of its written blocks in ascending block
 * index. Source: EBS direct APIs reference, PutSnapshotBlock and CompleteSnapshot.
 */
import { createHash } from "node:crypto";

/** Bytes in a SHA-256 digest. */
export const DIGEST_SIZE = 32;

/** The raw SHA-256 digest (32 bytes). */
export function sha256(data: Uint8Array): Buffer {
  return createHash("sha256").update(data).digest();
}

/** Builds the aggregate for CompleteSnapshot; memory does not grow with the number of blocks. */
export class LinearChecksum {
  readonly #hash = createHash("sha256");
  #last = -1;
  #count = 0;

  /** Blocks added so far. */
  get count(): number {
    return this.#count;
  }

  /**
   * @param digest the block's raw SHA-256, 32 bytes.
   * @throws RangeError where block indexes do not ascend or the digest has another length.
   */
  add(blockIndex: number, digest: Uint8Array): void {
    if (blockIndex <= this.#last) {
      throw new RangeError(`Block ${blockIndex} follows block ${this.#last}: indexes must ascend.`);
    }
    if (digest.length !== DIGEST_SIZE) {
      throw new RangeError(`A SHA-256 digest has 32 bytes, this one ${digest.length}.`);
    }
    this.#last = blockIndex;
    this.#count += 1;
    this.#hash.update(digest);
  }

  /** Base64 of the aggregate; call once, after the last block. */
  base64(): string {
    return this.#hash.digest("base64");
  }
}
