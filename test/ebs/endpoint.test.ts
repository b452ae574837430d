/** The client against the local endpoint with signatures checked, block after block. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { LinearChecksum } from "../../src/ebs/checksum.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { type Endpoint, startEndpoint } from "../../src/server/endpoint.js";

const KEY = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "very/secret+key" };
const kept = { ...process.env };
let folder: string;
let endpoint: Endpoint;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ebsmount-ebs-"));
  endpoint = await startEndpoint({ store: folder, credentials: KEY });
  process.env.AWS_ACCESS_KEY_ID = KEY.accessKeyId;
  process.env.AWS_SECRET_ACCESS_KEY = KEY.secretAccessKey;
});

afterEach(async () => {
  process.env = { ...kept };
  await endpoint.close();
  await rm(folder, { recursive: true, force: true });
});

test.each([0, 2])("a snapshot written and read back, all signed (%d threads)", async (threads) => {
  const api = createEbsApi({ endpointUrl: endpoint.url, region: "eu-north-1", threads });
  try {
    const { snapshotId } = await api.startSnapshot({ volumeSizeGiB: 1, clientToken: "t" });
    const blocks = Array.from({ length: 24 }, () => randomBytes(BLOCK_SIZE));
    const digests = await Promise.all(
      blocks.map((data, i) => api.putSnapshotBlock(snapshotId, i * 3, data)),
    );
    const linear = new LinearChecksum();
    digests.forEach((digest, i) => {
      linear.add(i * 3, digest);
    });
    await api.completeSnapshot(snapshotId, blocks.length, linear.base64());
    const page = await api.listSnapshotBlocks(snapshotId);
    expect([...page.blockIndexes]).toEqual(blocks.map((_, i) => i * 3));
    await Promise.all(
      blocks.map(async (data, i) => {
        const target = new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));
        await api.getSnapshotBlock(snapshotId, i * 3, page.blockTokens[i] as string, target);
        expect(Buffer.compare(data, Buffer.from(target))).toBe(0);
      }),
    );
  } finally {
    await api.close();
  }
});

test("a wrong key is refused with a sentence", async () => {
  process.env.AWS_SECRET_ACCESS_KEY = "wrong";
  const api = createEbsApi({ endpointUrl: endpoint.url, region: "eu-north-1", threads: 0 });
  try {
    await expect(api.listSnapshotBlocks("snap-0123")).rejects.toMatchObject({
      errno: "EACCES",
      message: expect.stringMatching(/credentials were refused|access was denied/),
    });
  } finally {
    await api.close();
  }
});
