/**
 * StartSnapshot, PutSnapshotBlock and CompleteSnapshot. What a request says is checked before the
 * snapshot is looked up, as the service does. Where the service's documentation leaves a point open,
 * the response here is the one that can lose no data: a complete whose count or checksum is wrong
 * leaves the snapshot pending, so the client can put what is missing; a complete that is repeated
 * because its response was lost gives the status again.
 */
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../common/sizes.js";
import { type Answer, type Call, wholeNumber } from "./call.js";
import { invalid } from "./service-error.js";
import type { SnapshotRecord } from "./snapshot-record.js";
import { parseStartBody } from "./start-body.js";
import type { Store } from "./store.js";

function header(call: Call, name: string): string | undefined {
  const value = call.headers[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}

function checkAlgorithm(call: Call, required: boolean): void {
  const algorithm = header(call, "x-amz-checksum-algorithm");
  if (algorithm === "SHA256" || (algorithm === undefined && !required)) return;
  throw invalid("INVALID_PARAMETER_VALUE", "The checksum algorithm must be SHA256.");
}

function checkEncoding(call: Call): void {
  const encoding = header(call, "content-encoding");
  if (encoding === undefined || encoding === "identity") return;
  throw invalid("INVALID_CONTENT_ENCODING", `The content encoding ${encoding} is not supported.`);
}

function json(status: number, value: unknown): Answer {
  const headers = { "Content-Type": "application/json" };
  return { status, headers, body: JSON.stringify(value) };
}

function startedAnswer(store: Store, record: SnapshotRecord, { effects }: Call): Answer {
  const { parameters } = record;
  const kmsKeyArn = effects.hidesKey ? undefined : parameters.kmsKeyArn;
  return json(201, {
    SnapshotId: record.snapshotId,
    OwnerId: store.ownerId,
    Status: effects.startsCompleted ? "completed" : record.status,
    StartTime: (record.startedAt + (effects.clockOffsetMs ?? 0)) / 1000,
    VolumeSize: parameters.volumeSizeGiB,
    BlockSize: BLOCK_SIZE,
    Tags: parameters.tags,
    ParentSnapshotId: parameters.parentSnapshotId,
    KmsKeyArn: kmsKeyArn,
    SseType: kmsKeyArn === undefined ? "none" : "sse-kms",
    Description: parameters.description,
  });
}

export function startSnapshot(store: Store, call: Call): Answer {
  checkEncoding(call);
  const asked = parseStartBody(Buffer.concat(call.body), store.ownerId);
  // First of all: the same request gets the same answer, whatever has become of the parent.
  const earlier = store.startedBy(asked);
  if (earlier !== undefined) return startedAnswer(store, earlier, call);
  if (asked.parentSnapshotId === undefined) return startedAnswer(store, store.start(asked), call);
  const parent = store.get(asked.parentSnapshotId);
  if (parent.status !== "completed") {
    throw invalid(
      "INVALID_SNAPSHOT_ID",
      `The parent snapshot '${parent.snapshotId}' is not completed (its status is ${parent.status}).`,
    );
  }
  if (asked.volumeSizeGiB < parent.parameters.volumeSizeGiB) {
    throw invalid(
      "INVALID_VOLUME_SIZE",
      `The volume size must be at least the parent's, ${parent.parameters.volumeSizeGiB} GiB.`,
    );
  }
  // A child of an encrypted parent is encrypted with the parent's key.
  return startedAnswer(store, store.start(asked, parent.parameters.kmsKeyArn), call);
}

export async function putSnapshotBlock(store: Store, call: Call): Promise<Answer> {
  checkEncoding(call);
  if (header(call, "x-amz-data-length") !== String(BLOCK_SIZE)) {
    throw invalid("INVALID_PARAMETER_VALUE", `x-amz-Data-Length must be ${BLOCK_SIZE}.`);
  }
  const progress = header(call, "x-amz-progress");
  if (progress !== undefined && wholeNumber("x-amz-Progress", progress) > 100) {
    throw invalid("INVALID_PARAMETER_VALUE", "x-amz-Progress must be 0 to 100.");
  }
  checkAlgorithm(call, true);
  const record = store.get(call.snapshotId);
  const blocks = record.parameters.volumeSizeGiB * BLOCKS_PER_GIB;
  if (call.blockIndex >= blocks) {
    throw invalid("INVALID_BLOCK", `The volume has ${blocks} blocks: no block ${call.blockIndex}.`);
  }
  const length = call.body.reduce((sum, part) => sum + part.length, 0);
  if (length !== BLOCK_SIZE) {
    throw invalid("INVALID_BLOCK", `The body has ${length} bytes: a block has ${BLOCK_SIZE}.`);
  }
  const checksum = call.digest.toString("base64");
  if (header(call, "x-amz-checksum") !== checksum) {
    throw invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the block's data.");
  }
  await store.pendingLayer(record).put(call.blockIndex, call.body, call.digest, call.arrival);
  const headers = { "x-amz-Checksum": checksum, "x-amz-Checksum-Algorithm": "SHA256" };
  return { status: 201, headers, body: "" };
}

export function completeSnapshot(store: Store, call: Call): Answer {
  const text = header(call, "x-amz-changedblockscount");
  if (text === undefined) {
    throw invalid("INVALID_PARAMETER_VALUE", "x-amz-ChangedBlocksCount is missing.");
  }
  const count = wholeNumber("x-amz-ChangedBlocksCount", text);
  const checksum = header(call, "x-amz-checksum");
  checkAlgorithm(call, checksum !== undefined);
  const method = header(call, "x-amz-checksum-aggregation-method");
  if (method !== "LINEAR" && (method !== undefined || checksum !== undefined)) {
    throw invalid("INVALID_PARAMETER_VALUE", "The checksum aggregation method must be LINEAR.");
  }
  const record = store.get(call.snapshotId);
  const sealed = record.completesAt !== undefined;
  const layer = sealed ? undefined : store.pendingLayer(record);
  const written = layer?.blockCount ?? record.changedBlocksCount;
  if (count !== written) {
    throw invalid(
      "INVALID_PARAMETER_VALUE",
      `The changed blocks count is ${count}, but ${written} blocks were written.`,
    );
  }
  if (checksum !== undefined && checksum !== (layer?.aggregate() ?? record.aggregate)) {
    throw invalid("INVALID_PARAMETER_VALUE", "The checksum does not match the written blocks.");
  }
  return json(202, { Status: sealed ? record.status : store.complete(record) });
}
