/**
 * EbsApi on the AWS SDK, in one thread. The SDK finds credentials, signs and words the requests and
 * sorts the errors; the answers are taken past it (http-handler.ts, answers.ts), so that every byte
 * of a block is counted and verified here, and its retries are replaced by retry.ts.
 */
import "./quiet-sdk.js";
import {
  CompleteSnapshotCommand,
  GetSnapshotBlockCommand,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from "@aws-sdk/client-ebs";
import { BLOCK_SIZE } from "../common/sizes.js";
import {
  type Asked,
  headerText,
  malformed,
  readBlockPage,
  readChangedBlockPage,
  readStartedSnapshot,
  readStatus,
} from "./answers.js";
import type {
  BlockPage,
  ChangedBlockPage,
  EbsApi,
  ListOptions,
  SnapshotStatus,
  StartedSnapshot,
  StartSnapshotOptions,
} from "./api.js";
import { sha256, sha256Base64 } from "./checksum.js";
import { environmentEndpoint } from "./client.js";
import type { Subject } from "./errors.js";
import { askedOf, listPage } from "./list-end.js";
import { Meter } from "./meter.js";
import { type RetryContext, withRetries } from "./retry.js";
import { SdkTransport } from "./sdk-transport.js";
import type { BlockRequest } from "./signed-blocks.js";
import type { SnapshotId } from "./snapshot-id.js";
import { AnswerError } from "./trouble.js";

export interface EbsOptions {
  /** Absent: the SDK's chain (AWS_REGION, the profile). */
  readonly region?: string;
  readonly profile?: string;
  /** Absent: AWS_ENDPOINT_URL_EBS, AWS_ENDPOINT_URL, or AWS itself. */
  readonly endpointUrl?: string;
  /** Requests that callers make at a time; connections are kept for as many. 64 unless told. */
  readonly concurrency?: number;
  /** Longest time for one operation with all its retries, ms; then it fails. 60 s unless told. */
  readonly ioTimeoutMs?: number;
  readonly meter?: Meter;
  readonly log?: (level: "debug" | "warn", message: string) => void;
}

export interface SdkEbsOptions extends EbsOptions {
  /** The endpoint is known to answer, so that it is worth waiting for. */
  readonly proven?: boolean;
}

const DEFAULT_CONCURRENCY = 64;
const DEFAULT_IO_TIMEOUT_MS = 60_000;
/** An attempt on which no byte moves for this long is given up, ms; sooner with a short deadline. */
const LONGEST_STALL_MS = 15_000;

export class SdkEbs implements EbsApi {
  readonly #context: RetryContext;
  readonly #transport: SdkTransport;

  constructor(options: SdkEbsOptions) {
    const ioTimeoutMs = options.ioTimeoutMs ?? DEFAULT_IO_TIMEOUT_MS;
    const meter = options.meter ?? new Meter();
    const transport = new SdkTransport(
      { ...options, sockets: options.concurrency ?? DEFAULT_CONCURRENCY },
      Math.min(Math.ceil(ioTimeoutMs / 3), LONGEST_STALL_MS),
      meter,
    );
    this.#transport = transport;
    this.#context = {
      ioTimeoutMs,
      meter,
      endpointUrl: options.endpointUrl ?? environmentEndpoint(),
      proven: options.proven ?? false,
      renewCredentials: () => transport.renewCredentials(),
      log: options.log ?? (() => {}),
    };
  }

  /** The endpoint has answered. */
  get proven(): boolean {
    return this.#context.proven;
  }

  listSnapshotBlocks(snapshotId: SnapshotId, options: ListOptions = {}): Promise<BlockPage> {
    const subject: Subject = { operation: "ListSnapshotBlocks", snapshotId };
    return withRetries(this.#context, subject, options.signal, (signal) =>
      listPage(askedOf(options), async (asked) => {
        const command = new ListSnapshotBlocksCommand({
          SnapshotId: snapshotId,
          ...listInput(asked),
        });
        return readBlockPage((await this.#transport.send(command, signal)).body, asked);
      }),
    );
  }

  listChangedBlocks(
    firstSnapshotId: SnapshotId | undefined,
    secondSnapshotId: SnapshotId,
    options: ListOptions = {},
  ): Promise<ChangedBlockPage> {
    const subject: Subject = { operation: "ListChangedBlocks", snapshotId: secondSnapshotId };
    return withRetries(this.#context, subject, options.signal, (signal) =>
      listPage(askedOf(options), async (asked) => {
        const command = new ListChangedBlocksCommand({
          SecondSnapshotId: secondSnapshotId,
          ...(firstSnapshotId !== undefined && { FirstSnapshotId: firstSnapshotId }),
          ...listInput(asked),
        });
        return readChangedBlockPage((await this.#transport.send(command, signal)).body, asked);
      }),
    );
  }

  getSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    blockToken: string,
    target: Uint8Array,
    signal?: AbortSignal,
    digest?: Uint8Array,
  ): Promise<void> {
    requireBlock(target);
    const subject: Subject = { operation: "GetSnapshotBlock", snapshotId, blockIndex };
    const input = { SnapshotId: snapshotId, BlockIndex: blockIndex, BlockToken: blockToken };
    const request: BlockRequest = { snapshotId, blockIndex, blockToken };
    const command = () => new GetSnapshotBlockCommand(input);
    return withRetries(this.#context, subject, signal, async (stop) => {
      const { headers } = await this.#transport.sendBlock(request, command, stop, target);
      const checksum = verifyBlock(headers, target);
      digest?.set(Buffer.from(checksum, "base64"));
    });
  }

  startSnapshot(options: StartSnapshotOptions): Promise<StartedSnapshot> {
    const subject: Subject = {
      operation: "StartSnapshot",
      ...(options.parentSnapshotId !== undefined && { snapshotId: options.parentSnapshotId }),
    };
    const command = new StartSnapshotCommand({
      VolumeSize: options.volumeSizeGiB,
      ParentSnapshotId: options.parentSnapshotId,
      Description: options.description,
      Tags: options.tags?.map(({ key, value }) => ({ Key: key, Value: value })),
      ClientToken: options.clientToken,
      Encrypted: options.encrypted,
      KmsKeyArn: options.kmsKeyArn,
      Timeout: options.timeoutMinutes,
    });
    return withRetries(this.#context, subject, options.signal, async (signal) => {
      const { body } = await this.#transport.send(command, signal);
      return readStartedSnapshot(body);
    });
  }

  putSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    data: Uint8Array,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    requireBlock(data);
    const digest = sha256(data);
    const checksum = digest.toString("base64");
    const subject: Subject = { operation: "PutSnapshotBlock", snapshotId, blockIndex };
    const command = () =>
      new PutSnapshotBlockCommand({
        SnapshotId: snapshotId,
        BlockIndex: blockIndex,
        BlockData: data,
        DataLength: BLOCK_SIZE,
        Checksum: checksum,
        ChecksumAlgorithm: "SHA256",
      });
    const put = {
      data,
      hash: digest.toString("hex"),
      headers: {
        "content-type": "application/octet-stream",
        "x-amz-data-length": String(BLOCK_SIZE),
        "x-amz-checksum": checksum,
        "x-amz-checksum-algorithm": "SHA256",
      },
    };
    const request: BlockRequest = { snapshotId, blockIndex, put };
    return withRetries(this.#context, subject, signal, async (stop) => {
      const { headers } = await this.#transport.sendBlock(request, command, stop);
      const stored = headerText(headers, "x-amz-checksum");
      if (stored !== undefined && stored !== checksum) {
        const message = "the service took other bytes than were sent (its checksum differs).";
        throw new AnswerError("corrupt", "ChecksumMismatch", message);
      }
      return digest;
    });
  }

  completeSnapshot(
    snapshotId: SnapshotId,
    changedBlocksCount: number,
    checksum?: string,
    signal?: AbortSignal,
  ): Promise<SnapshotStatus> {
    const subject: Subject = { operation: "CompleteSnapshot", snapshotId };
    const command = new CompleteSnapshotCommand({
      SnapshotId: snapshotId,
      ChangedBlocksCount: changedBlocksCount,
      ...(checksum !== undefined && {
        Checksum: checksum,
        ChecksumAlgorithm: "SHA256",
        ChecksumAggregationMethod: "LINEAR",
      }),
    });
    return withRetries(this.#context, subject, signal, async (stop) => {
      const { body } = await this.#transport.send(command, stop);
      return readStatus(body);
    });
  }

  async close(): Promise<void> {
    this.#transport.close();
  }
}

function listInput(options: Asked): {
  NextToken?: string;
  StartingBlockIndex?: number;
  MaxResults?: number;
} {
  return {
    ...(options.maxResults !== undefined && { MaxResults: options.maxResults }),
    ...(options.pageToken !== undefined
      ? { NextToken: options.pageToken }
      : options.startingBlockIndex !== undefined && {
          StartingBlockIndex: options.startingBlockIndex,
        }),
  };
}

function requireBlock(bytes: Uint8Array): void {
  if (bytes.length !== BLOCK_SIZE) throw new RangeError(`a block has ${BLOCK_SIZE} bytes`);
}

/**
 * Length is checked already: the exchange ends only when the target is exactly full.
 * @returns the block's Base64 SHA-256. @throws AnswerError
 */
function verifyBlock(headers: Record<string, string>, block: Uint8Array): string {
  const length = headerText(headers, "x-amz-data-length");
  if (length !== undefined && Number(length) !== BLOCK_SIZE) {
    throw new AnswerError(
      "corrupt",
      "WrongDataLength",
      `it calls itself ${length.slice(0, 20)} bytes long.`,
    );
  }
  const algorithm = headerText(headers, "x-amz-checksum-algorithm");
  if (algorithm !== undefined && algorithm.toUpperCase().replace("-", "") !== "SHA256") {
    throw malformed(`its checksum algorithm is ${algorithm.slice(0, 20)}, not SHA256`);
  }
  const checksum = headerText(headers, "x-amz-checksum");
  if (checksum === undefined) throw malformed("a block came without its checksum");
  if (sha256Base64(block) !== checksum) {
    throw new AnswerError(
      "corrupt",
      "ChecksumMismatch",
      "the block's bytes do not match its SHA-256.",
    );
  }
  return checksum;
}
