/** What the disk cache serves and to whom: after a list call, by namespace, and by proven lineage. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DiskCache } from "../../src/cache/disk-cache.js";
import { LineageDifference } from "../../src/cache/disk-cache-lineage.js";
import { withDiskCache } from "../../src/cache/disk-cached-api.js";
import { BLOCK_SIZE, MIB } from "../../src/common/sizes.js";
import type { BlockPage, ChangedBlockPage, EbsApi, ListOptions } from "../../src/ebs/api.js";
import { EbsError } from "../../src/ebs/errors.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";
import { until } from "../support/scratch.js";

const FIRST = "snap-01" as const;
const SECOND = "snap-02" as const;

function refused(exception: string, errno: "EACCES" | "EIO"): EbsError {
  return new EbsError({
    operation: "ListSnapshotBlocks",
    message: exception,
    exception,
    errno,
    attempts: 1,
  });
}

class Service {
  readonly gets: string[] = [];
  comparisons = 0;
  mayList = true;
  compare: () => Promise<ChangedBlockPage> = () =>
    Promise.reject(refused("UNRELATED_SNAPSHOTS", "EIO"));
  readonly api = {
    listSnapshotBlocks: async (): Promise<BlockPage> => {
      if (!this.mayList) throw refused("AccessDeniedException", "EACCES");
      return {
        blockIndexes: new Uint32Array(0),
        blockTokens: [],
        expiresAt: 0,
        volumeSizeGiB: 1,
        nextToken: undefined,
      };
    },
    listChangedBlocks: () => {
      this.comparisons += 1;
      return this.compare();
    },
    getSnapshotBlock: async (id: SnapshotId, block: number, _: string, target: Uint8Array) => {
      this.gets.push(`${id}/${block}`);
      target.fill(block + 1);
    },
    close: async () => {},
  } as unknown as EbsApi;
}

let folder: string;
const undo: (() => unknown)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
});
afterEach(async () => {
  for (const action of undo.splice(0).reverse()) await action();
  rmSync(folder, { recursive: true, force: true });
});

interface Opened {
  readonly service: Service;
  readonly api: EbsApi;
  readonly cache: DiskCache;
  readonly logged: string[];
}

function open(identity: () => Promise<string> = async () => "us"): Opened {
  const logged: string[] = [];
  const cache = new DiskCache({
    folder,
    bytes: 33 * MIB,
    log: (_, message) => logged.push(message),
  });
  const service = new Service();
  const api = withDiskCache(service.api, cache, identity);
  undo.push(() => api.close());
  return { service, api, cache, logged };
}

async function get(api: EbsApi, id: SnapshotId, block: number): Promise<void> {
  const target = Buffer.alloc(BLOCK_SIZE);
  await api.getSnapshotBlock(id, block, "token", target);
  expect(target.equals(Buffer.alloc(BLOCK_SIZE, block + 1))).toBe(true);
}

/** A mount that lists a snapshot, reads blocks and ends. @returns what it fetched. */
async function visit(
  id: SnapshotId,
  blocks: readonly number[],
  more: { readonly identity?: string; readonly compare?: Service["compare"] } = {},
): Promise<Opened> {
  const opened = open(async () => more.identity ?? "us");
  if (more.compare !== undefined) opened.service.compare = more.compare;
  await opened.api.listSnapshotBlocks(id);
  for (const block of blocks) await get(opened.api, id, block);
  await opened.api.close();
  return opened;
}

function changes(...blockIndexes: number[]): ChangedBlockPage {
  return {
    blockIndexes: Uint32Array.from(blockIndexes),
    firstTokens: blockIndexes.map(() => "a"),
    secondTokens: blockIndexes.map(() => "b"),
    expiresAt: 0,
    volumeSizeGiB: 1,
    nextToken: undefined,
  };
}

describe("the disk cache before the service", () => {
  it("serves a snapshot only once it has been listed, and not after a refusal", async () => {
    await visit(FIRST, [1, 2]);
    const { service, api, cache } = open();
    await get(api, FIRST, 1);
    expect(service.gets).toEqual(["snap-01/1"]);
    service.mayList = false;
    await expect(api.listSnapshotBlocks(FIRST)).rejects.toThrow();
    await get(api, FIRST, 1);
    expect(service.gets).toHaveLength(2);
    service.mayList = true;
    await api.listSnapshotBlocks(FIRST);
    await get(api, FIRST, 1);
    expect(service.gets).toHaveLength(2);
    expect(cache.reading().hits).toBe(1);
    service.mayList = false;
    await expect(api.listSnapshotBlocks(FIRST)).rejects.toThrow();
    await get(api, FIRST, 1);
    expect(service.gets).toHaveLength(3);
  });

  it("serves nobody else, and nobody where the account is not known", async () => {
    await visit(FIRST, [1]);
    expect((await visit(FIRST, [1], { identity: "them" })).service.gets).toHaveLength(1);
    expect((await visit(FIRST, [1])).service.gets).toHaveLength(0);
    const { service, api, logged } = open(() => Promise.reject(new Error("no credentials")));
    await api.listSnapshotBlocks(FIRST);
    await get(api, FIRST, 1);
    expect(service.gets).toHaveLength(1);
    expect(logged).toHaveLength(1);
  });

  it("uses a relative's blocks where the service says that they are unchanged", async () => {
    await visit(FIRST, [1, 2, 3]);
    const compare = async () => changes(2);
    const { service } = await visit(SECOND, [1, 2, 3, 4], { compare });
    expect(service.gets).toEqual(["snap-02/2", "snap-02/4"]);
    expect(service.comparisons).toBe(1);
  });

  it("uses a relative of the same mount, whichever is read first", async () => {
    const { service, api, cache } = open();
    service.compare = async () => changes(2);
    await api.listSnapshotBlocks(FIRST);
    await api.listSnapshotBlocks(SECOND);
    for (const block of [1, 2]) await get(api, SECOND, block);
    await until("they are kept", () => cache.reading().kept === 2);
    for (const block of [1, 2]) await get(api, FIRST, block);
    expect(service.gets).toEqual(["snap-02/1", "snap-02/2", "snap-01/2"]);
  });

  it("finds a relative behind any number of strangers, and asks about none that has nothing", async () => {
    await visit(FIRST, [1, 2]);
    for (let n = 3; n < 12; n += 1) await visit(`snap-0${n.toString(16)}`, [100 + n]);
    const compare = async () => changes();
    const { service } = await visit(SECOND, [1, 2], { compare });
    expect(service.gets).toEqual([]);
    expect(service.comparisons).toBe(1);
  });

  it("believes no answer that is of another volume, and none that says no", async () => {
    await visit(FIRST, [1]);
    const answers = [
      async () => ({ ...changes(), volumeSizeGiB: 2 }),
      () => Promise.reject(refused("MalformedAnswer", "EIO")),
    ];
    for (const [i, compare] of answers.entries()) {
      const { service } = await visit(`snap-1${i}`, [1], { compare });
      expect(service.gets).toEqual([`snap-1${i}/1`]);
    }
  });

  it("asks no more once it was refused, or told that there is no relation", async () => {
    await visit(FIRST, [1, 2]);
    const unrelated = await visit(SECOND, [1, 2]);
    expect(unrelated.service).toMatchObject({ comparisons: 1, gets: ["snap-02/1", "snap-02/2"] });
    const denied = await visit("snap-03", [1, 2], {
      compare: () => Promise.reject(refused("AccessDeniedException", "EACCES")),
    });
    // Of both earlier snapshots at once, and then never again.
    expect(denied.service.comparisons).toBe(2);
    expect(denied.service.gets).toHaveLength(2);
  });

  it("does without a thread that has died, and says so once", async () => {
    const { service, api, cache, logged } = open();
    await api.listSnapshotBlocks(FIRST);
    await get(api, FIRST, 1);
    cache.turnOff("a test says so");
    cache.turnOff("a test says so");
    for (const block of [1, 2, 1]) await get(api, FIRST, block);
    expect(service.gets).toHaveLength(4);
    expect(logged).toHaveLength(1);
  });

  it("keeps what is fetched at once by many readers, or drops it, but never mixes it up", async () => {
    const { api, cache } = open();
    await api.listSnapshotBlocks(FIRST);
    const all = Array.from({ length: 60 }, (_, block) => block);
    await Promise.all(all.map((block) => get(api, FIRST, block)));
    await until("it is written", () => cache.reading().kept + cache.reading().dropped === 60);
    await Promise.all(all.map((block) => get(api, FIRST, block)));
    expect(cache.reading().hits).toBeGreaterThan(0);
  });
});

describe("the difference of two snapshots", () => {
  it("calls unchanged only what a list proves, however it is cut into pages", async () => {
    const limit = 20_000;
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.nat(limit - 1), { maxLength: 200 }),
        fc.array(fc.nat(8), { minLength: 1, maxLength: 10 }),
        fc.array(fc.nat(limit - 1), { minLength: 1, maxLength: 20 }),
        fc.nat(12),
        async (unsorted, pageSizes, anywhere, failAt) => {
          const changed = unsorted.sort((a, b) => a - b);
          const asked = [...anywhere, ...changed.filter((_, i) => i % 20 === 0)];
          let calls = 0;
          const api = {
            listChangedBlocks: async (
              _first: SnapshotId | undefined,
              _second: SnapshotId,
              options: ListOptions = {},
            ) => {
              calls += 1;
              if (calls === failAt) throw refused("InternalServerException", "EIO");
              const from =
                options.pageToken === undefined
                  ? (options.startingBlockIndex ?? 0)
                  : Number(options.pageToken);
              const most = pageSizes[calls % pageSizes.length] as number;
              const rest = changed.filter((block) => block >= from);
              const page = rest.slice(0, most);
              const next = rest[most];
              return {
                ...changes(...page),
                nextToken: next === undefined ? undefined : String(next),
              };
            },
          };
          const difference = new LineageDifference(api, FIRST, SECOND, 1, () => {});
          const answers = await Promise.all(asked.map((block) => difference.isUnchanged(block)));
          for (let i = 0; i < asked.length; i += 1) {
            const isChanged = changed.includes(asked[i] as number);
            if (answers[i]) expect(isChanged).toBe(false);
            // Whole pages, no failure: then everything is known.
            const easy = failAt === 0 && pageSizes.every((size) => size === 8);
            if (easy && changed.length <= 8) expect(answers[i]).toBe(!isChanged);
          }
          expect(calls).toBeLessThanOrEqual(4 * asked.length);
        },
      ),
      { numRuns: 300 },
    );
  });
});
