/** An endpoint on a temporary folder with the real SDK against it, both gone when the test ends. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CompleteSnapshotCommand,
  EBSClient,
  GetSnapshotBlockCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
  type StartSnapshotCommandInput,
} from "@aws-sdk/client-ebs";
import { onTestFinished } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { type Endpoint, type EndpointOptions, startEndpoint } from "../../src/server/endpoint.js";

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = "true";

const CREDENTIALS = { accessKeyId: "test", secretAccessKey: "secret" };

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "ebsmount-server-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function clientOf(url: string, credentials = CREDENTIALS, maxAttempts = 1): EBSClient {
  const client = new EBSClient({ endpoint: url, region: "local", credentials, maxAttempts });
  onTestFinished(() => client.destroy());
  return client;
}

export interface Rig {
  readonly endpoint: Endpoint;
  readonly client: EBSClient;
}

export async function rig(options: Partial<EndpointOptions> = {}): Promise<Rig> {
  const endpoint = await startEndpoint({ store: options.store ?? temporaryFolder(), ...options });
  onTestFinished(() => endpoint.close());
  return { endpoint, client: clientOf(endpoint.url) };
}

/** A block whose bytes all follow from `content`. */
export function blockOf(content: number): Buffer {
  const block = Buffer.alloc(BLOCK_SIZE, content & 0xff);
  block.writeUInt32LE(content, 0);
  return block;
}

/** What `blockOf` was given; fails unless the whole block is as it made it. */
export function contentOf(block: Buffer): number {
  const content = block.readUInt32LE(0);
  if (!block.equals(blockOf(content))) throw new Error("not a whole block");
  return content;
}

export const sha256 = (data: Uint8Array): Buffer => createHash("sha256").update(data).digest();

export async function start(
  client: EBSClient,
  input: Partial<StartSnapshotCommandInput> = {},
): Promise<string> {
  const started = await client.send(new StartSnapshotCommand({ VolumeSize: 1, ...input }));
  return started.SnapshotId!;
}

export async function put(
  client: EBSClient,
  SnapshotId: string,
  BlockIndex: number,
  data: Buffer,
): Promise<void> {
  await client.send(
    new PutSnapshotBlockCommand({
      SnapshotId,
      BlockIndex,
      BlockData: data,
      DataLength: data.length,
      Checksum: sha256(data).toString("base64"),
      ChecksumAlgorithm: "SHA256",
    }),
  );
}

export async function complete(client: EBSClient, SnapshotId: string, ChangedBlocksCount: number) {
  return client.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount }));
}

/** A completed snapshot with these blocks (block index to content). */
export async function snapshotOf(
  client: EBSClient,
  blocks: Readonly<Record<number, number>>,
  input: Partial<StartSnapshotCommandInput> = {},
): Promise<string> {
  const id = await start(client, input);
  for (const [index, content] of Object.entries(blocks)) {
    await put(client, id, Number(index), blockOf(content));
  }
  await complete(client, id, Object.keys(blocks).length);
  return id;
}

export async function get(
  client: EBSClient,
  SnapshotId: string,
  BlockIndex: number,
  BlockToken: string,
): Promise<Buffer> {
  const answer = await client.send(
    new GetSnapshotBlockCommand({ SnapshotId, BlockIndex, BlockToken }),
  );
  const data = Buffer.from(await answer.BlockData!.transformToByteArray());
  if (sha256(data).toString("base64") !== answer.Checksum) throw new Error("wrong checksum");
  return data;
}

/** Waits until `check` holds; fails after ten seconds. */
export async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000;
  while (!(await check())) {
    if (Date.now() > end) throw new Error("waited ten seconds in vain");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
