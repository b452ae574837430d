/**
 * The AWS CLI and boto3, unchanged, against the local endpoint: all six operations, signed, over a
 * parent and a child. Neither shares a line with the SDK that the rest of the tests use.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { blockOf, rig, sha256, temporaryFolder } from "../server/rig.js";

const AWS = "/usr/bin/aws";
const scriptPath = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const run = promisify(execFile);
const CREDENTIALS = { accessKeyId: "test", secretAccessKey: "secret" };

/** Nothing of this machine's own AWS configuration. */
function environment(folder: string): NodeJS.ProcessEnv {
  return {
    PATH: process.env.PATH,
    HOME: folder,
    AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
    AWS_DEFAULT_REGION: "us-east-1",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_MAX_ATTEMPTS: "1",
  };
}

interface Block {
  readonly BlockIndex: number;
  readonly BlockToken: string;
  readonly FirstBlockToken?: string;
  readonly SecondBlockToken?: string;
}

const hasAws = existsSync(AWS);
test.skipIf(!hasAws)(`aws ebs, all six operations${hasAws ? "" : ` (no ${AWS})`}`, async () => {
  const folder = temporaryFolder();
  const { endpoint } = await rig({ credentials: CREDENTIALS });
  const aws = async (command: string, options: Record<string, string | number>, file?: string) => {
    const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, String(value)]);
    const { stdout } = await run(
      AWS,
      ["--endpoint-url", endpoint.url, "--output", "json", "ebs", command, ...args].concat(
        file === undefined ? [] : [file],
      ),
      { env: environment(folder) },
    );
    return JSON.parse(stdout) as {
      SnapshotId: string;
      Status: string;
      Checksum: string;
      Blocks: Block[];
      ChangedBlocks: Block[];
    };
  };
  const file = join(folder, "block");
  const putBlock = async (id: string, index: number, content: number) => {
    writeFileSync(file, blockOf(content));
    const checksum = sha256(blockOf(content)).toString("base64");
    const answer = await aws("put-snapshot-block", {
      "snapshot-id": id,
      "block-index": index,
      "block-data": file,
      "data-length": 524288,
      checksum,
      "checksum-algorithm": "SHA256",
      progress: 50,
    });
    expect(answer.Checksum).toBe(checksum);
  };
  const parent = await aws("start-snapshot", {
    "volume-size": 1,
    description: "from the AWS CLI",
    tags: "Key=Name,Value=cli",
    "client-token": "t-1",
    timeout: 60,
  });
  expect(parent.Status).toBe("pending");
  await putBlock(parent.SnapshotId, 0, 10);
  await putBlock(parent.SnapshotId, 7, 17);
  const aggregate = createHash("sha256");
  for (const content of [10, 17]) aggregate.update(sha256(blockOf(content)));
  const completed = await aws("complete-snapshot", {
    "snapshot-id": parent.SnapshotId,
    "changed-blocks-count": 2,
    checksum: aggregate.digest("base64"),
    "checksum-algorithm": "SHA256",
    "checksum-aggregation-method": "LINEAR",
  });
  expect(completed.Status).toBe("pending");
  const child = await aws("start-snapshot", {
    "volume-size": 1,
    "parent-snapshot-id": parent.SnapshotId,
  });
  await putBlock(child.SnapshotId, 7, 27);
  await aws("complete-snapshot", { "snapshot-id": child.SnapshotId, "changed-blocks-count": 1 });

  const list = await aws("list-snapshot-blocks", {
    "snapshot-id": child.SnapshotId,
    "max-results": 100,
  });
  expect(list.Blocks.map((block) => block.BlockIndex)).toEqual([0, 7]);
  const changes = await aws("list-changed-blocks", {
    "first-snapshot-id": parent.SnapshotId,
    "second-snapshot-id": child.SnapshotId,
    "starting-block-index": 1,
  });
  expect(changes.ChangedBlocks.map((block) => block.BlockIndex)).toEqual([7]);
  const getBlock = async (id: string, index: number, token: string) => {
    const target = join(folder, "fetched");
    const options = { "snapshot-id": id, "block-index": index, "block-token": token };
    await aws("get-snapshot-block", options, target);
    return readFileSync(target);
  };
  const { FirstBlockToken, SecondBlockToken } = changes.ChangedBlocks[0]!;
  const fetched = [
    await getBlock(child.SnapshotId, 0, list.Blocks[0]!.BlockToken),
    await getBlock(parent.SnapshotId, 7, FirstBlockToken!),
    await getBlock(child.SnapshotId, 7, SecondBlockToken!),
  ];
  expect(fetched.map((data, i) => data.equals(blockOf([10, 17, 27][i]!)))).toEqual([
    true,
    true,
    true,
  ]);
  await expect(
    aws("list-snapshot-blocks", { "snapshot-id": "snap-0123456789abcdef0" }),
  ).rejects.toThrow(/ResourceNotFoundException.*does not exist/s);
});

test.skipIf(!hasAws)("aws ebs, refused by the names that AWS gives", async () => {
  const { endpoint } = await rig({ credentials: CREDENTIALS });
  const env = environment(temporaryFolder());
  const refused = async (more: object, ...args: string[]) => {
    const words = ["--endpoint-url", endpoint.url, "ebs", ...args];
    const ended = run(AWS, words, { env: { ...env, ...more } });
    const { stderr } = (await ended.catch((error: unknown) => error)) as { stderr: string };
    return /An error occurred \((\w+)\)/.exec(stderr)?.[1] ?? stderr;
  };
  const list = ["list-snapshot-blocks", "--snapshot-id", "snap-12"];
  const description = ["start-snapshot", "--volume-size", "1", "--description", ""];
  expect(
    await Promise.all([
      refused({}, ...description),
      refused({}, ...list, "--max-results", "10001"),
      refused({}, "list-changed-blocks", "--second-snapshot-id", "snap-12"),
      refused({ AWS_SECRET_ACCESS_KEY: "guess" }, ...list),
      refused({ AWS_ACCESS_KEY_ID: "other" }, ...list),
      refused({ AWS_SESSION_TOKEN: "stray" }, ...list),
      refused({}, "--no-sign-request", ...list),
    ]),
  ).toEqual([
    "ValidationException",
    "ValidationException",
    "ValidationException",
    "InvalidSignatureException",
    "UnrecognizedClientException",
    "UnrecognizedClientException",
    "MissingAuthenticationTokenException",
  ]);
});

describe.skipIf(!existsSync("/usr/lib/python3/dist-packages/boto3"))("boto3", () => {
  const python = async (script: string) => {
    const { endpoint } = await rig({ credentials: CREDENTIALS });
    const args = [scriptPath(script), endpoint.url];
    const { stdout } = await run("/usr/bin/python3", args, { env: environment(temporaryFolder()) });
    return stdout.trim();
  };

  test("writes and reads, with its checks of what comes back", async () => {
    expect(await python("boto3-snapshot.py")).toBe("ok");
  });

  test("is refused as by the service, where it does not check itself", async () => {
    const invalid = "ValidationException";
    expect(JSON.parse(await python("boto3-refusals.py"))).toEqual({
      "tag key 127": "ok",
      "tag key 128": invalid,
      "tag value 255": "ok",
      "tag value 256": invalid,
      "description 0": invalid,
      "description 255": "ok",
      "description 256": invalid,
      "key without a name": "ok",
      "no key at all": invalid,
      token: "ok",
      "token, tags in another order": "ok",
      "token, other tags": "ConflictException",
      complete: "pending",
      "complete again": "completed",
      "results 99": "ok",
      "results 100": "ok",
      "results 10000": "ok",
      "results 10001": invalid,
      "changed 99": "ok",
      "changed 100": "ok",
      "changed 10000": "ok",
      "changed 10001": invalid,
      "one snapshot to compare": invalid,
      "wrong secret": "InvalidSignatureException",
      "unknown key": "UnrecognizedClientException",
      unsigned: "MissingAuthenticationTokenException",
    });
  });
});
