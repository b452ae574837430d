/**
 * One snapshot as a source of blocks for the cache: what is written according to the index, and the
 * bytes from the service. A token that the service refuses, because it has expired or the listing
 * was made anew, is listed again and the fetch tried once more.
 */
import type { BlockSource } from "../cache/block-fetcher.js";
import { Failure } from "../common/failure.js";
import type { EbsApi } from "../ebs/api.js";
import { isInvalidBlockToken } from "../ebs/errors.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { BlockIndex } from "../snapshot/block-index.js";

/** Times that a refused token is replaced for one fetch. */
const TOKEN_RENEWALS = 2;

export class BlockLoader implements BlockSource {
  readonly device: number;
  readonly #api: EbsApi;
  readonly #snapshotId: SnapshotId;
  readonly #index: BlockIndex;

  constructor(device: number, api: EbsApi, snapshotId: SnapshotId, index: BlockIndex) {
    this.device = device;
    this.#api = api;
    this.#snapshotId = snapshotId;
    this.#index = index;
  }

  peek(block: number): "data" | "hole" | undefined {
    return this.#index.peek(block);
  }

  async isWritten(block: number): Promise<boolean> {
    return (await this.#index.lookup(block)) !== undefined;
  }

  describe(block: number): string {
    return `block ${block} of ${this.#snapshotId}`;
  }

  async load(block: number, target: Uint8Array, signal: AbortSignal): Promise<void> {
    for (let renewals = 0; ; renewals += 1) {
      const token = await this.#index.lookup(block);
      if (token === undefined) throw vanished(this.#snapshotId, block);
      try {
        await this.#api.getSnapshotBlock(this.#snapshotId, block, token, target, signal);
        return;
      } catch (error) {
        if (!isInvalidBlockToken(error) || renewals === TOKEN_RENEWALS) throw error;
        this.#index.invalidate(block, token);
      }
    }
  }
}

function vanished(snapshotId: SnapshotId, block: number): Failure {
  return new Failure(
    "EIO",
    `Block ${block} of ${snapshotId} was listed before and is not any more, which a completed snapshot never does; check --endpoint-url.`,
  );
}
