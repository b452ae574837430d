/**
 * The peer for fetching and putting: the AWS SDK as one would use it in a loop of one's own, with no
 * file system, no cache, no verification and no disk, in a process of its own. Blocks go round a
 * given number of loops at a time, over as many connections.
 *
 * usage: bare-sdk.mjs get SNAPSHOT FIRST COUNT CONCURRENCY [WARM-UP]
 *        bare-sdk.mjs put FILE FIRST COUNT CONCURRENCY [WARM-UP]
 * Lists (or starts a snapshot of FILE's size), works WARM-UP blocks that are not timed, then COUNT blocks
 * that are, and prints { seconds, processorSeconds } of those as JSON.
 */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import {
  EBSClient,
  GetSnapshotBlockCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from "@aws-sdk/client-ebs";

const BLOCK_SIZE = 512 * 1024;
const [what, subject, ...numbers] = process.argv.slice(2);
const [first, count, concurrency, warmUp = 0] = numbers.map(Number);
const client = new EBSClient({
  requestHandler: { httpAgent: { keepAlive: true, maxSockets: concurrency } },
});

async function inLoops(from, to, work) {
  let next = from;
  const loop = async () => {
    while (next < to) await work(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, loop));
}

async function tokensOf(snapshotId) {
  const tokens = new Map();
  let page = {};
  do {
    page = await client.send(
      new ListSnapshotBlocksCommand({
        SnapshotId: snapshotId,
        StartingBlockIndex: first,
        MaxResults: 10_000,
        NextToken: page.NextToken,
      }),
    );
    for (const block of page.Blocks) tokens.set(block.BlockIndex, block.BlockToken);
  } while (page.NextToken !== undefined && tokens.size < warmUp + count);
  return tokens;
}

async function getter(snapshotId) {
  const tokens = await tokensOf(snapshotId);
  return async (index) => {
    const response = await client.send(
      new GetSnapshotBlockCommand({
        SnapshotId: snapshotId,
        BlockIndex: index,
        BlockToken: tokens.get(index),
      }),
    );
    const bytes = await response.BlockData.transformToByteArray();
    if (bytes.length !== BLOCK_SIZE) throw new Error(`block ${index} is ${bytes.length} bytes`);
  };
}

async function putter(path) {
  const file = await open(path);
  const { size } = await file.stat();
  const start = new StartSnapshotCommand({ VolumeSize: Math.ceil(size / 2 ** 30) });
  const { SnapshotId } = await client.send(start);
  const buffers = Array.from({ length: concurrency }, () => Buffer.alloc(BLOCK_SIZE));
  return async (index) => {
    const data = buffers.pop();
    await file.read(data, 0, BLOCK_SIZE, index * BLOCK_SIZE);
    await client.send(
      new PutSnapshotBlockCommand({
        SnapshotId,
        BlockIndex: index,
        BlockData: data,
        DataLength: BLOCK_SIZE,
        Checksum: createHash("sha256").update(data).digest("base64"),
        ChecksumAlgorithm: "SHA256",
      }),
    );
    buffers.push(data);
  };
}

const work = what === "get" ? await getter(subject) : await putter(subject);
await inLoops(first, first + warmUp, work);
const start = performance.now();
const used = process.cpuUsage();
await inLoops(first + warmUp, first + warmUp + count, work);
const { user, system } = process.cpuUsage(used);
const seconds = (performance.now() - start) / 1000;
console.log(JSON.stringify({ seconds, processorSeconds: (user + system) / 1e6 }));
client.destroy();
