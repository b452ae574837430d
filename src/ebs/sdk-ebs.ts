/**
 * EbsApi on the AWS SDK. The SDK finds credentials, signs and words the rare requests and names the errors;
 * blocks are signed, sent and verified past it, in threads of their own (block-threads.ts). Responses are read
 * by our own code (answers.ts), and the SDK's retries are replaced by retry.ts.
 */
import "./quiet-sdk.js";
import {
  CompleteSnapshotCommand,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
  StartSnapshotCommand,
} from "@aws-sdk/client-ebs";
import { clockOffset, isWrong } from "../aws/clock.js";
import { BLOCK_SIZE } from "../common/sizes.js";
import type { HttpResponse } from "../http/transport.js";
import {
  type Asked,
  type Listed,
  type Page,
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
import { BlockFlow } from "./block-flow.js";
import type { BlockRequest } from "./block-request.js";
import { BlockThreads } from "./block-threads.js";
import { Budget } from "./budget.js";
import { EbsError, interrupted, type Subject } from "./errors.js";
import { askedOf, listPage } from "./list-end.js";
import { Meter } from "./meter.js";
import { NOT_YET_MS, type RetryContext, withRetries } from "./retry.js";
import { SdkTransport } from "./sdk-transport.js";
import { ServiceException } from "./service-exception.js";
import type { SnapshotId } from "./snapshot-id.js";

export interface EbsOptions {
  /** Absent: what the AWS configuration says (src/aws/settings.ts). */
  readonly region?: string;
  readonly profile?: string;
  /** Absent: what the AWS configuration says (src/aws/settings.ts), or AWS itself. */
  readonly endpointUrl?: string;
  /** Requests that callers make at a time; connections are kept for as many. 64 unless told. */
  readonly concurrency?: number;
  /** Longest time for one operation since a byte of it moved, ms; then it fails. 60 s unless told. */
  readonly ioTimeoutMs?: number;
  /** Bytes of blocks a second at most, gets and puts together. */
  readonly bytesPerSecond?: number;
  /** Gets, and puts, a second and snapshot at most; see block-flow.ts for the default. */
  readonly requestsPerSecond?: number;
  /** The endpoint is known to respond: a refused connection is worth waiting for. */
  readonly proven?: boolean;
  /** Threads for blocks; 0 does everything in the calling thread. See create.ts for the default. */
  readonly threads?: number;
  readonly meter?: Meter;
  /** What all requests together may cost; anything unless told. */
  readonly budget?: Budget;
  readonly log?: (level: "debug" | "warn", message: string) => void;
}

const DEFAULT_CONCURRENCY = 64;
const DEFAULT_IO_TIMEOUT_MS = 60_000;
/** An attempt on which no byte moves for this long is given up, ms; sooner with a short deadline. */
const LONGEST_STALL_MS = 15_000;

export class SdkEbs implements EbsApi {
  readonly #context: RetryContext;
  readonly #transport: SdkTransport;
  readonly #threads: BlockThreads;
  readonly #flow: BlockFlow;
  readonly #stallMs: number;
  /** Snapshots that were started lately, and when, by performance.now(). */
  readonly #started = new Map<string, number>();

  constructor(options: EbsOptions & { readonly threads: number }) {
    const ioTimeoutMs = options.ioTimeoutMs ?? DEFAULT_IO_TIMEOUT_MS;
    const log = options.log ?? (() => {});
    const concurrency = options.concurrency ?? DEFAULT_CONCURRENCY;
    this.#stallMs = Math.min(Math.ceil(ioTimeoutMs / 3), LONGEST_STALL_MS);
    const transport = new SdkTransport(options, concurrency, this.#stallMs, log);
    this.#transport = transport;
    this.#threads = new BlockThreads(options.threads, log);
    this.#flow = new BlockFlow({ ...options, concurrency });
    this.#context = {
      ioTimeoutMs,
      meter: options.meter ?? new Meter(),
      proven: options.proven ?? false,
      startedAt: (snapshotId) => this.#started.get(snapshotId),
      budget: options.budget ?? new Budget(),
      waitsFor: () => transport.waitsFor,
      renewCredentials: () => transport.renewCredentials(),
      log,
    };
  }

  get getsAtATime(): number {
    return this.#flow.limit("get");
  }

  /** Block threads that have loaded and take work. */
  get readyThreads(): number {
    return this.#threads.ready;
  }

  listSnapshotBlocks(snapshotId: SnapshotId, options: ListOptions = {}): Promise<BlockPage> {
    const subject: Subject = { operation: "ListSnapshotBlocks", snapshotId };
    return withRetries(this.#context, subject, options.signal, (signal, progress) =>
      listPage(askedOf(options), async (asked) => {
        const command = new ListSnapshotBlocksCommand({
          SnapshotId: snapshotId,
          ...listInput(asked),
        });
        const { body, headers } = await this.#send(command, signal, progress);
        return byOurClock(readBlockPage(body, asked), headers.date);
      }),
    );
  }

  listChangedBlocks(
    firstSnapshotId: SnapshotId | undefined,
    secondSnapshotId: SnapshotId,
    options: ListOptions = {},
  ): Promise<ChangedBlockPage> {
    const subject: Subject = { operation: "ListChangedBlocks", snapshotId: secondSnapshotId };
    return withRetries(this.#context, subject, options.signal, (signal, progress) =>
      listPage(askedOf(options), async (asked) => {
        const command = new ListChangedBlocksCommand({
          SecondSnapshotId: secondSnapshotId,
          ...(firstSnapshotId !== undefined && { FirstSnapshotId: firstSnapshotId }),
          ...listInput(asked),
        });
        const { body, headers } = await this.#send(command, signal, progress);
        return byOurClock(readChangedBlockPage(body, asked), headers.date);
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
    const subject = { operation: "GetSnapshotBlock", snapshotId, blockIndex } as const;
    const stallMs = this.#stallMs;
    const request: BlockRequest = { kind: "get", snapshotId, blockIndex, blockToken, stallMs };
    return this.#inFlow(subject, signal, async (stop, progress) => {
      const found = await this.#sendBlock(request, target, stop, progress);
      digest?.set(found);
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
      const { body, headers } = await this.#send(command, signal);
      const started = readStartedSnapshot(body, headers.date);
      this.#noteStarted(started);
      return started;
    });
  }

  putSnapshotBlock(
    snapshotId: SnapshotId,
    blockIndex: number,
    data: Uint8Array,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    requireBlock(data);
    const subject = { operation: "PutSnapshotBlock", snapshotId, blockIndex } as const;
    const stallMs = this.#stallMs;
    const request: BlockRequest = { kind: "put", snapshotId, blockIndex, blockToken: "", stallMs };
    return this.#inFlow(subject, signal, (stop, progress) =>
      this.#sendBlock(request, data, stop, progress),
    );
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
      const { body } = await this.#send(command, stop);
      return readStatus(body);
    });
  }

  async close(): Promise<void> {
    await this.#threads.close();
    await this.#transport.close();
  }

  /** A block's operation, once the line and the limits let it go; its deadline begins then. */
  async #inFlow<T>(
    subject: Subject & { readonly snapshotId: string },
    signal: AbortSignal | undefined,
    oneTry: (signal: AbortSignal, progress: (bodyBytes: number) => void) => Promise<T>,
  ): Promise<T> {
    const direction = subject.operation === "GetSnapshotBlock" ? "get" : "put";
    const { origin } = this.#transport;
    const work = () => withRetries(this.#context, subject, signal, oneTry);
    try {
      return await this.#flow.run(direction, subject.snapshotId, origin, signal, work);
    } catch (error) {
      throw signal?.aborted && !(error instanceof EbsError) ? interrupted(subject) : error;
    }
  }

  /** Only what was started lately is kept, so that it stays small. */
  #noteStarted({ snapshotId, startedAgoMs }: StartedSnapshot): void {
    const now = performance.now();
    for (const [id, at] of this.#started) if (now - at > NOT_YET_MS) this.#started.delete(id);
    if (startedAgoMs < NOT_YET_MS) this.#started.set(snapshotId, now - startedAgoMs);
  }

  /** One try through the SDK. */
  #send(
    command: object,
    signal: AbortSignal,
    progress?: (bodyBytes: number) => void,
  ): Promise<HttpResponse> {
    const stallMs = this.#stallMs;
    return this.#transport.send(command, signal, { stallMs, ...(progress && { progress }) });
  }

  /** One try at a block. */
  async #sendBlock(
    request: BlockRequest,
    block: Uint8Array,
    signal: AbortSignal,
    progress: (bodyBytes: number) => void,
  ): Promise<Uint8Array> {
    const opened = await this.#transport.open();
    const context = await this.#transport.signingContext();
    try {
      return await this.#threads.send(opened, context, request, block, signal, progress);
    } catch (error) {
      if (error instanceof ServiceException) this.#transport.noteClock(error, context);
      throw error;
    }
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

/**
 * On a machine whose clock is wrong, tokens would seem to have expired, or to be good for longer than they are.
 * @param date the response's Date header.
 */
function byOurClock<T extends Page & { readonly expiresAt: number }>(
  listed: Listed<T>,
  date: string | undefined,
): Listed<T> {
  if (!isWrong(0, date)) return listed;
  const { page } = listed;
  return { ...listed, page: { ...page, expiresAt: page.expiresAt - clockOffset(date) } };
}

function requireBlock(bytes: Uint8Array): void {
  if (bytes.length !== BLOCK_SIZE) throw new RangeError(`a block has ${BLOCK_SIZE} bytes`);
}
