/** A completed snapshot that lacks what it must show is found out, and it costs few and small lists. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { BlockPage, EbsApi, ListOptions } from "../../src/ebs/api.js";
import { EbsError } from "../../src/ebs/errors.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";
import { findMissing, listedParentBlocks } from "../../src/snapshot/verify-snapshot.js";
import { SnapshotWriter } from "../../src/snapshot/writer.js";

const CHILD = "snap-0c" as const;
const PARENT = "snap-0a" as const;
const DIGEST = new Uint8Array(32).fill(1);

class Service {
  readonly lists: ListOptions[] = [];
  readonly snapshots: Record<string, readonly number[]>;
  readonly api = {
    listSnapshotBlocks: async (id: SnapshotId, options: ListOptions): Promise<BlockPage> => {
      this.lists.push(options);
      const from = Number(options.pageToken ?? options.startingBlockIndex);
      const rest = (this.snapshots[id] ?? []).filter((block) => block >= from);
      const given = rest.slice(0, options.maxResults);
      const next = rest[given.length];
      return {
        blockIndexes: Uint32Array.from(given),
        blockTokens: given.map(String),
        expiresAt: 0,
        volumeSizeGiB: 1,
        nextToken: next === undefined ? undefined : String(next),
      };
    },
    completeSnapshot: async () => "pending",
  } as unknown as EbsApi;

  constructor(snapshots: Record<string, readonly number[]>) {
    this.snapshots = snapshots;
  }

  /** Of a snapshot that these blocks were put into. */
  async writer(put: readonly number[]): Promise<SnapshotWriter> {
    const writer = new SnapshotWriter(this.api, {
      snapshotId: CHILD,
      volumeSizeGiB: 1,
      status: "pending",
    });
    for (const block of put) await writer.digests.set(block, DIGEST);
    return writer;
  }
}

const blocks = fc
  .uniqueArray(fc.nat(2047), { maxLength: 400 })
  .map((unsorted) => unsorted.sort((a, b) => a - b));

test("finds what is missing, of what was put and of what a parent had", async () => {
  await fc.assert(
    fc.asyncProperty(
      blocks,
      blocks,
      fc.constantFrom("whole", "inherits nothing", "keeps nothing"),
      async (parent, put, child) => {
        const all = [...new Set([...parent, ...put])].sort((a, b) => a - b);
        const listed = child === "whole" ? all : child === "keeps nothing" ? [] : put;
        const service = new Service({ [PARENT]: parent, [CHILD]: listed });
        const writer = await service.writer(put);
        expect(await writer.complete()).toBe("completed");
        const found = await findMissing(
          service.api,
          writer,
          listedParentBlocks(service.api, PARENT),
        );
        const inherited = parent.some((block) => !put.includes(block));
        if (child === "whole") expect(found).toBeUndefined();
        else if (child === "keeps nothing" && put.length > 0) expect(found?.kind).toBe("put");
        else expect(found?.kind).toBe(inherited ? "inherited" : undefined);
      },
    ),
    { numRuns: 200 },
  );
});

test("one changed block of many costs two lists of 100, whichever it is", async () => {
  const parent = Array.from({ length: 2048 }, (_, i) => i);
  for (const changed of [0, 1, 1000, 2046, 2047]) {
    const service = new Service({ [PARENT]: parent, [CHILD]: parent });
    const writer = await service.writer([changed]);
    await writer.complete();
    const parentBlocks = listedParentBlocks(service.api, PARENT);
    expect(await findMissing(service.api, writer, parentBlocks)).toBeUndefined();
    // Of the very last block the parent has none behind, and is looked through from its start.
    expect(service.lists.length).toBeLessThanOrEqual(changed === 2047 ? 4 : 2);
    for (const { maxResults } of service.lists) expect(maxResults).toBe(100);
  }
});

function refusal(exception: string, errno: "EIO" | "EACCES" | "ESTALE"): EbsError {
  const operation = "ListSnapshotBlocks";
  return new EbsError({ operation, errno, exception, message: exception, attempts: 1 });
}

test("what may not be read tells nothing", async () => {
  const service = new Service({ [CHILD]: [7] });
  const writer = await service.writer([7]);
  await writer.complete();
  const hidden = (errno: "EACCES" | "ESTALE") => () => {
    throw refusal("no", errno);
  };
  for (const errno of ["EACCES", "ESTALE"] as const) {
    expect(await findMissing(service.api, writer, hidden(errno))).toBeUndefined();
  }
  service.api.listSnapshotBlocks = hidden("EACCES");
  const blind = await service.writer([7]);
  expect(await blind.complete()).toBe("accepted");
  expect(await findMissing(service.api, blind)).toBeUndefined();
});

test("a list that makes no sense ends the wait for completion", async () => {
  const service = new Service({});
  let calls = 0;
  service.api.listSnapshotBlocks = async () => {
    calls += 1;
    throw calls < 3 ? refusal("ValidationException", "EIO") : refusal("MalformedAnswer", "EIO");
  };
  const writer = await service.writer([7]);
  await expect(writer.complete()).rejects.toThrow("MalformedAnswer");
  expect(calls).toBe(3);
});
