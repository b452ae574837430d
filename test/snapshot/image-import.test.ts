/**
 * Images become snapshots and children of snapshots: whatever is data, zeros or hole in the image and
 * in the parent, the new snapshot has what the image has, written zeros too, and nothing is put that
 * need not be.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BLOCK_SIZE, GIB } from "../../src/common/sizes.js";
import type { EbsApi } from "../../src/ebs/api.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { Meter } from "../../src/ebs/meter.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";
import { type Endpoint, startEndpoint } from "../../src/server/endpoint.js";
import { BlockList } from "../../src/snapshot/block-list.js";
import { MemoryDigests } from "../../src/snapshot/digest-ledger.js";
import { FileSource } from "../../src/snapshot/file-source.js";
import { importImage } from "../../src/snapshot/image-import.js";
import type { BlockChoice, ImageSource } from "../../src/snapshot/image-source.js";
import { openImportLedger } from "../../src/snapshot/import-ledger.js";
import { type ByteReader, StreamSource } from "../../src/snapshot/stream-source.js";
import { type SnapshotWriter, startSnapshotWriter } from "../../src/snapshot/writer.js";
import { pieces } from "../support/pieces.js";
import { until } from "../support/scratch.js";

let folder: string;
let endpoint: Endpoint;
let api: EbsApi;

beforeAll(async () => {
  process.env.AWS_ACCESS_KEY_ID = "test";
  process.env.AWS_SECRET_ACCESS_KEY = "test";
  folder = mkdtempSync(join(tmpdir(), "ebsmount-import-"));
  endpoint = await startEndpoint({ store: join(folder, "store") });
  api = createEbsApi({
    endpointUrl: endpoint.url,
    region: "us-east-1",
    concurrency: 8,
    ioTimeoutMs: 20_000,
    meter: new Meter(),
    log: () => {},
    threads: 0,
  });
});
afterAll(async () => {
  await api.close();
  await endpoint.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Block → the byte it is full of; 0 is written zeros. What is absent is a hole. */
type Picture = ReadonlyMap<number, number>;

/** Blocks near each other and near both ends of a volume of 1 GiB. */
const BLOCKS = [0, 1, 2, 3, 64, 65, 1000, 2046, 2047];
const pictures: fc.Arbitrary<Picture> = fc
  .array(fc.tuple(fc.constantFrom(...BLOCKS), fc.integer({ min: 0, max: 3 })), { maxLength: 8 })
  .map((entries) => new Map(entries));

let made = 0;
async function draw(picture: Picture, size = GIB, where = folder): Promise<string> {
  made += 1;
  const path = join(where, `${made}.img`);
  const file = await open(path, "w");
  await file.truncate(size);
  for (const [block, byte] of picture) {
    await file.write(Buffer.alloc(BLOCK_SIZE, byte), 0, BLOCK_SIZE, block * BLOCK_SIZE);
  }
  await file.close();
  return path;
}

interface Imported {
  readonly id: SnapshotId;
  /** By the last run. */
  readonly bytesPut: number;
  /** Blocks that earlier runs have put and noted. */
  readonly noted: number;
}

/** @param stopAfter blocks put until the import is interrupted, as often as there are numbers. */
async function importPicture(
  picture: Picture,
  parent: SnapshotId | undefined,
  stopAfter: readonly number[],
): Promise<Imported> {
  return await importFrom(await draw(picture), "written", parent, stopAfter);
}

async function importFrom(
  path: string,
  choice: BlockChoice,
  parent?: SnapshotId,
  stopAfter?: readonly number[],
): Promise<Imported> {
  return await importSource(() => FileSource.open(path), choice, parent, stopAfter);
}

/** @param open the same image for each run. */
async function importSource(
  open: () => Promise<ImageSource>,
  choice: BlockChoice,
  parent?: SnapshotId,
  stopAfter: readonly number[] = [],
): Promise<Imported> {
  made += 1;
  const clientToken = `token-${made}`;
  let bytesPut = 0;
  for (let run = 0; ; run += 1) {
    const source = await open();
    const writer = await startSnapshotWriter(
      api,
      {
        volumeSizeGiB: 1,
        clientToken,
        ...(parent !== undefined && { parentSnapshotId: parent }),
      },
      (id) => openImportLedger(join(folder, "ledgers"), id, run > 0),
    );
    const stop = new AbortController();
    const limit = stopAfter[run];
    let noted = 0;
    for await (const _ of writer.digests.entries()) noted += 1;
    try {
      bytesPut += await importImage({
        source,
        choice,
        writer,
        ...(parent !== undefined && { parent: await BlockList.open(api, parent) }),
        resumed: run > 0,
        concurrency: 3,
        signal: stop.signal,
        onProgress: (_done, moved) => {
          if (limit !== undefined && moved >= limit * BLOCK_SIZE) stop.abort();
        },
      });
      if (stop.signal.aborted) throw new Error("interrupted at the very end");
      await writer.complete({ wait: true });
      return { id: writer.snapshotId, bytesPut, noted };
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    } finally {
      await writer.digests.close();
      await source.close();
    }
  }
}

async function readBack(id: SnapshotId): Promise<Map<number, number>> {
  const { blockIndexes, blockTokens } = await api.listSnapshotBlocks(id);
  const picture = new Map<number, number>();
  const block = new Uint8Array(BLOCK_SIZE);
  for (const [i, index] of blockIndexes.entries()) {
    await api.getSnapshotBlock(id, index, blockTokens[i] as string, block);
    expect(block.every((byte) => byte === block[0])).toBe(true);
    picture.set(index, block[0] as number);
  }
  return picture;
}

/** A picture's blocks in order. */
function sorted(picture: Picture): [number, number][] {
  return [...picture].sort(([a], [b]) => a - b);
}

test("an image, alone, over a parent and interrupted, becomes what it is", async () => {
  await fc.assert(
    fc.asyncProperty(
      pictures,
      pictures,
      fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 }),
      async (base, next, stopAfter) => {
        const parent = await importPicture(base, undefined, []);
        expect(sorted(await readBack(parent.id))).toEqual(sorted(base));
        expect(parent.bytesPut).toBe(base.size * BLOCK_SIZE);
        const child = await importPicture(next, parent.id, stopAfter);
        // A hole over a block of the parent has to become zeros; a child cannot lose a block.
        const expected = new Map([...[...base.keys()].map((b) => [b, 0] as const), ...next]);
        expect(sorted(await readBack(child.id))).toEqual(sorted(expected));
        if (stopAfter.length === 0) {
          const differing = [...expected].filter(([block, byte]) => base.get(block) !== byte);
          expect(child.bytesPut).toBe(differing.length * BLOCK_SIZE);
        }
      },
    ),
    { numRuns: 25 },
  );
});

/** Whole blocks of a stream; the last one is cut short. */
const STREAM_BLOCKS = 6;
const STREAM_SIZE = STREAM_BLOCKS * BLOCK_SIZE - 700;

function streamOf(picture: Picture, sizes: readonly number[]): StreamSource {
  const bytes = Buffer.alloc(STREAM_SIZE);
  for (const [block, byte] of picture) {
    bytes.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE).fill(byte);
  }
  return new StreamSource("pipe", STREAM_SIZE, pieces(bytes, sizes));
}

const streamed: fc.Arbitrary<Picture> = fc
  .array(fc.integer({ min: 0, max: 2 }), {
    minLength: STREAM_BLOCKS - 1,
    maxLength: STREAM_BLOCKS - 1,
  })
  .map((bytes) => new Map([...bytes, 0].entries()));

test("a stream, alone, over a parent and interrupted, becomes what it is, and nothing is put twice", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.option(pictures),
      streamed,
      fc.boolean(),
      fc.array(fc.integer({ min: 1, max: BLOCK_SIZE }), { maxLength: 20 }),
      fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 2 }),
      async (base, picture, omitsZeros, sizes, stopAfter) => {
        const parent = base === null ? undefined : await importPicture(base, undefined, []);
        const { id, bytesPut, noted } = await importSource(
          async () => streamOf(picture, sizes),
          omitsZeros ? "nonzero" : "written",
          parent?.id,
          stopAfter,
        );
        const before: Picture = base ?? new Map();
        // Over a block of the parent zeros cannot be left out.
        const looked = [...picture].filter(
          ([block, byte]) => !omitsZeros || byte !== 0 || before.has(block),
        );
        const expected = new Map([...[...before.keys()].map((b) => [b, 0] as const), ...looked]);
        expect(sorted(await readBack(id))).toEqual(sorted(expected));
        const differing = [...expected].filter(([block, byte]) => before.get(block) !== byte);
        expect(bytesPut).toBe((differing.length - noted) * BLOCK_SIZE);
      },
    ),
    { numRuns: 25 },
  );
});

test("a stream is read no further than its blocks can be put", async () => {
  let taken = 0;
  const endless: ByteReader = {
    async read(target) {
      taken += target.length;
      return target.length;
    },
    close() {},
  };
  const stop = new AbortController();
  let puts = 0;
  const writer = {
    digests: new MemoryDigests(),
    put: (_block: number, _data: Uint8Array, signal: AbortSignal) => {
      puts += 1;
      return new Promise((_, reject) =>
        signal.addEventListener("abort", () => reject(stop.signal.reason)),
      );
    },
  } as unknown as SnapshotWriter;
  const source = new StreamSource("pipe", GIB, endless);
  const importing = importImage({
    source,
    choice: "written",
    writer,
    resumed: false,
    concurrency: 3,
    signal: stop.signal,
  });
  importing.catch(() => {});
  await until("as many puts as may be", () => puts === 3);
  for (let turn = 0; turn < 100; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  expect(puts).toBe(3);
  expect(taken).toBe(3 * BLOCK_SIZE);
  stop.abort(new Error("enough"));
  await expect(importing).rejects.toThrow("enough");
  await source.close();
});

const MIXED: Picture = new Map([
  [1, 5],
  [2, 0],
  [4, 0],
]);
const SIZE = 5 * BLOCK_SIZE + 1000;

test.each([
  ["written", [1, 2, 4]],
  ["nonzero", [1]],
  ["all", [0, 1, 2, 3, 4, 5]],
] as const)("choice %s of an image puts blocks %j", async (choice, blocks) => {
  const { id } = await importFrom(await draw(MIXED, SIZE), choice);
  expect([...(await readBack(id)).keys()]).toEqual(blocks);
});

test("a file system without FIEMAP has all blocks put", async () => {
  const elsewhere = mkdtempSync("/dev/shm/ebsmount-import-");
  try {
    const path = await draw(MIXED, SIZE, elsewhere);
    const source = await FileSource.open(path);
    expect(source.tellsHoles).toBe(false);
    await source.close();
    const { id } = await importFrom(path, "written");
    expect([...(await readBack(id)).keys()]).toEqual([0, 1, 2, 3, 4, 5]);
  } finally {
    rmSync(elsewhere, { recursive: true, force: true });
  }
});
