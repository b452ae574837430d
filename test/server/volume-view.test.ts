/** The view of a snapshot as a volume: what is there as it is, what is absent random and repeatable. */
import { get as httpGet } from "node:http";
import fc from "fast-check";
import { expect, test } from "vitest";
import { BLOCK_SIZE, GIB } from "../../src/common/sizes.js";
import { blockOf, rig, snapshotOf, start } from "./rig.js";

function urlOf(endpoint: { url: string }, id: string): string {
  return `${endpoint.url}/_ebsmount/snapshots/${id}/volume`;
}

async function part(url: string, from: number, to: number): Promise<Buffer> {
  const response = await fetch(url, { headers: { Range: `bytes=${from}-${to - 1}` } });
  expect(response.status).toBe(206);
  expect(response.headers.get("content-range")).toBe(`bytes ${from}-${to - 1}/${GIB}`);
  return Buffer.from(await response.arrayBuffer());
}

function ones(bytes: Buffer): number {
  let count = 0;
  for (const byte of bytes) for (let bits = byte; bits > 0; bits &= bits - 1) count += 1;
  return count;
}

test("shows written blocks, zeros too, and random bytes for absent ones", async () => {
  const { endpoint, client } = await rig();
  const parent = await snapshotOf(client, { 1: 5, 3: 0 });
  const child = await snapshotOf(client, { 2: 7 }, { ParentSnapshotId: parent });
  const url = urlOf(endpoint, child);
  const shown = await part(url, 0, 6 * BLOCK_SIZE);
  const block = (i: number, of = shown) => of.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE);
  expect(block(1).equals(blockOf(5))).toBe(true);
  expect(block(2).equals(blockOf(7))).toBe(true);
  expect(block(3).equals(Buffer.alloc(BLOCK_SIZE))).toBe(true);
  for (const absent of [0, 4, 5]) {
    const share = ones(block(absent)) / (8 * BLOCK_SIZE);
    expect(share).toBeGreaterThan(0.49);
    expect(share).toBeLessThan(0.51);
  }
  expect(block(4).equals(block(5))).toBe(false);
  expect(block(4).subarray(0, 64).equals(block(4).subarray(64, 128))).toBe(false);
  expect((await part(url, 0, 6 * BLOCK_SIZE)).equals(shown)).toBe(true);
  const other = await part(urlOf(endpoint, parent), 0, BLOCK_SIZE);
  expect(other.equals(block(0))).toBe(false);
  // No call of the service: what tests count is not disturbed.
  expect(endpoint.stats().operations.GetSnapshotBlock.calls).toBe(0);
});

test("sends any part as it is in the whole", async () => {
  const { endpoint, client } = await rig();
  const url = urlOf(endpoint, await snapshotOf(client, { 0: 1, 2: 3 }));
  const whole = await part(url, 0, 4 * BLOCK_SIZE);
  const place = fc.nat(4 * BLOCK_SIZE - 1);
  await fc.assert(
    fc.asyncProperty(place, place, async (a, b) => {
      const [from, to] = [Math.min(a, b), Math.max(a, b) + 1];
      expect((await part(url, from, to)).equals(whole.subarray(from, to))).toBe(true);
    }),
    { numRuns: 30 },
  );
  const tail = await fetch(url, { headers: { Range: "bytes=-100" } });
  expect(tail.headers.get("content-range")).toBe(`bytes ${GIB - 100}-${GIB - 1}/${GIB}`);
  expect((await tail.arrayBuffer()).byteLength).toBe(100);
  const past = await fetch(url, { headers: { Range: `bytes=${GIB}-` } });
  expect(past.status).toBe(416);
  expect(past.headers.get("content-range")).toBe(`bytes */${GIB}`);
  const head = await fetch(url, { method: "HEAD" });
  expect(head.headers.get("content-length")).toBe(String(GIB));
});

test("says what makes no volume, and outlives a client that leaves", async () => {
  const messages: string[] = [];
  const { endpoint, client } = await rig({ log: (message) => messages.push(message) });
  const pending = await fetch(urlOf(endpoint, await start(client)));
  expect(pending.status).toBe(400);
  expect(await pending.json()).toMatchObject({
    error: expect.stringMatching(/makes no volume yet/),
  });
  expect((await fetch(urlOf(endpoint, "snap-0123"))).status).toBe(404);
  expect((await fetch(urlOf(endpoint, "nothing"))).status).toBe(400);
  const url = urlOf(endpoint, await snapshotOf(client, { 0: 1 }));
  await new Promise<void>((resolve, reject) => {
    const asked = httpGet(url, (response) => {
      response.once("data", () => {
        response.destroy();
        resolve();
      });
    });
    asked.once("error", reject);
  });
  expect((await part(url, 0, 10)).length).toBe(10);
  expect(messages).toEqual([]);
});
