/**
 * What an encrypted volume made of a snapshot would hold, as a file: the endpoint's view, in which
 * blocks that the snapshot lacks are random.
 */
import { createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import type { Rig } from "./rig.js";
import { until } from "./scratch.js";

/** @returns the file's path; it is as large as the volume and goes with the rig. */
export async function volumeFile(rig: Rig, snapshot: string): Promise<string> {
  const path = rig.scratch.file(`${snapshot}.volume`);
  const response = await fetch(`${rig.endpoint.url}/_ebsmount/snapshots/${snapshot}/volume`);
  if (response.body === null || !response.ok) {
    throw new Error(`no volume of ${snapshot}: status ${response.status}`);
  }
  await pipeline(Readable.fromWeb(response.body as ReadableStream), createWriteStream(path));
  return path;
}

/** Block indexes that the snapshot has, ascending; it must fit in one page of the list. */
export async function blocksOf(rig: Rig, snapshot: string): Promise<number[]> {
  const url = `${rig.endpoint.url}/snapshots/${snapshot}/blocks?maxResults=10000`;
  // An endpoint like AWS finds a completed snapshot by and by.
  const response = await until(`${snapshot} is listed`, async () => {
    const found = await fetch(url);
    return found.ok && found;
  });
  const list = (await response.json()) as {
    readonly Blocks: readonly { readonly BlockIndex: number }[];
    readonly NextToken?: string | null;
  };
  if (list.NextToken) throw new Error("more blocks than a page takes");
  return list.Blocks.map(({ BlockIndex }) => BlockIndex);
}
