/**
 * An EbsApi whose blocks are looked for in the disk cache before they are fetched, and kept there
 * after. A snapshot's blocks are served from the disk only once today's credentials have listed it
 * through this very object; when a list is refused, no more. Blocks are kept under a namespace that
 * names service, region and account (ebs/identity.ts), so others never find them.
 *
 * A block that is not there may be there as a block of another snapshot of the same lineage, and the
 * service knows whether it is the same (disk-cache-relatives.ts).
 */
import { createHash } from "node:crypto";
import type { BlockPage, EbsApi, ListOptions } from "../ebs/api.js";
import { interrupted } from "../ebs/errors.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { DiskCache } from "./disk-cache.js";
import type { LineageDifference } from "./disk-cache-lineage.js";
import { type Kinship, Relatives } from "./disk-cache-relatives.js";
import { blockKey } from "./disk-cache-slot.js";

/** Snapshots that the folder is asked for. */
const REMEMBERED = 64;
/** Relatives that offer a block whom the service is asked about at a time. */
const ASKED = 4;

interface Listed {
  /** Absent where nothing is served from the disk. */
  readonly relatives: Relatives | undefined;
}

/**
 * Closing it closes the cache and `api`.
 * @param identity gives the namespace; asked once, after the first list call has succeeded.
 */
export function withDiskCache(
  api: EbsApi,
  cache: DiskCache,
  identity: () => Promise<string>,
): EbsApi {
  const blocks = new CachedBlocks(api, cache, identity);
  return {
    get getsAtATime() {
      return api.getsAtATime ?? Number.POSITIVE_INFINITY;
    },
    listSnapshotBlocks: (snapshotId, options) => blocks.list(snapshotId, options),
    // Whoever wants a block's digest reads each block once: the cache has nothing to give there.
    getSnapshotBlock: (id, block, token, target, signal, digest) =>
      digest === undefined
        ? blocks.get(id, block, token, target, signal)
        : api.getSnapshotBlock(id, block, token, target, signal, digest),
    listChangedBlocks: (...args) => api.listChangedBlocks(...args),
    startSnapshot: (options) => api.startSnapshot(options),
    putSnapshotBlock: (...args) => api.putSnapshotBlock(...args),
    completeSnapshot: (...args) => api.completeSnapshot(...args),
    close: async () => {
      await cache.close();
      await api.close();
    },
  };
}

class CachedBlocks {
  readonly #api: EbsApi;
  readonly #cache: DiskCache;
  readonly #identity: () => Promise<string>;
  /** Snapshots that the credentials have listed: those of the mount. */
  readonly #listed = new Map<SnapshotId, Promise<Listed>>();
  #namespace: Promise<string | undefined> | undefined;
  #mayCompare = true;

  constructor(api: EbsApi, cache: DiskCache, identity: () => Promise<string>) {
    this.#api = api;
    this.#cache = cache;
    this.#identity = identity;
  }

  async list(snapshotId: SnapshotId, options?: ListOptions): Promise<BlockPage> {
    try {
      const page = await this.#api.listSnapshotBlocks(snapshotId, options);
      if (!this.#listed.has(snapshotId)) {
        this.#listed.set(snapshotId, this.#open(snapshotId, page.volumeSizeGiB));
      }
      return page;
    } catch (error) {
      const { errno } = error as { errno?: unknown };
      if (errno === "EACCES" || errno === "ESTALE") this.#listed.delete(snapshotId);
      throw error;
    }
  }

  async get(
    snapshotId: SnapshotId,
    block: number,
    token: string,
    target: Uint8Array,
    signal?: AbortSignal,
  ): Promise<void> {
    const namespace = await this.#namespace;
    const listed = await this.#listed.get(snapshotId);
    const fetch = () => this.#api.getSnapshotBlock(snapshotId, block, token, target, signal);
    if (namespace === undefined || listed === undefined) return await fetch();
    const key = blockKey(namespace, snapshotId, block);
    const found = await this.#find(namespace, key, block, listed, target);
    if (signal?.aborted) {
      throw interrupted({ operation: "GetSnapshotBlock", snapshotId, blockIndex: block });
    }
    if (found) return;
    await fetch();
    this.#cache.write(key, target);
  }

  async #find(
    namespace: string,
    key: Buffer,
    block: number,
    listed: Listed,
    target: Uint8Array,
  ): Promise<boolean> {
    const relatives = this.#mayCompare ? (listed.relatives?.current() ?? []) : [];
    const theirs = relatives.map(({ other }) => blockKey(namespace, other, block));
    const { found, held } = await this.#cache.read([key, ...theirs], target);
    if (found || held.length === 0) return found;
    const offered = held.slice(0, ASKED).map((i) => i - 1);
    const same = await Promise.all(
      offered.map((i) => (relatives[i] as LineageDifference).isUnchanged(block)),
    );
    for (let n = 0; n < offered.length; n += 1) {
      if (!same[n]) continue;
      const their = theirs[offered[n] as number] as Buffer;
      if ((await this.#cache.read([their], target)).found) return true;
    }
    return false;
  }

  async #open(snapshotId: SnapshotId, volumeSizeGiB: number): Promise<Listed> {
    this.#namespace ??= this.#identity().then(
      (identity) => createHash("sha256").update(identity).digest("hex"),
      (error: unknown) => {
        this.#cache.turnOff(`whose blocks they are is not known (${(error as Error).message})`);
        return undefined;
      },
    );
    const namespace = await this.#namespace;
    if (namespace === undefined) return { relatives: undefined };
    const own = namespace.slice(0, 16);
    const kinship: Kinship = {
      api: this.#api,
      siblings: (of) => [...this.#listed.keys()].filter((other) => other !== of),
      remember: (of) => this.#cache.remember(own, of, REMEMBERED),
      onRefused: () => {
        this.#mayCompare = false;
      },
    };
    return { relatives: await Relatives.of(kinship, snapshotId, volumeSizeGiB) };
  }
}
