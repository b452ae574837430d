/**
 * One mount's conversation with the kernel: the worker that reads /dev/fuse, the handler that
 * answers on the main thread, and the end of both. The worker is started before mounting, because a
 * thread takes tens of milliseconds to load, and told the descriptor once there is a mount.
 */
import { closeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import type { DirectReads } from "../../common/direct-reads.js";
import { Failure } from "../../common/failure.js";
import { workerUrl } from "../../common/worker-url.js";
import type { FileSystem } from "../../filesystem/filesystem.js";
import { AnswerLog } from "../answer-log.js";
import type { MountRequest } from "../driver.js";
import { ReplyWriter } from "./reply-writer.js";
import { RequestHandler } from "./request-handler.js";
import {
  allocateSharedRequests,
  RequestConsumer,
  type SharedRequestMemory,
} from "./shared-requests.js";

export interface ConversationData {
  readonly memory: SharedRequestMemory;
  readonly direct: DirectReads | undefined;
}

/** What the worker says; the bare number 0 wakes the main thread for the ring. */
export type ConversationMessage =
  | { readonly kind: "ready"; readonly version: string }
  | { readonly kind: "refused"; readonly version: string }
  | { readonly kind: "log"; readonly text: string }
  | { readonly kind: "failed"; readonly text: string }
  | { readonly kind: "ended" };

/** INIT comes at once after mounting; a kernel that sends none for so long will not. */
const READY_WITHIN_MS = 15_000;

export class Conversation {
  /** Resolves with the kernel's protocol version once the mount answers requests. */
  readonly ready: Promise<string>;
  /** Resolves when the kernel has let go and no write is under way; rejects on a defect. */
  readonly ended: Promise<void>;
  readonly #consumer: RequestConsumer;
  readonly #worker: Worker;
  readonly #files: FileSystem;
  readonly #log: MountRequest["log"];
  readonly #settle: {
    ready: (version: string) => void;
    notReady: (error: Error) => void;
    ended: () => void;
    broken: (error: Error) => void;
  };
  #fd: number | undefined;
  #reply: ReplyWriter | undefined;
  #handler: RequestHandler | undefined;
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  constructor(request: MountRequest) {
    this.#files = request.fileSystem;
    this.#log = (level, message) => request.log(level, message);
    const memory = allocateSharedRequests();
    this.#consumer = new RequestConsumer(memory);
    const data: ConversationData = { memory, direct: request.directReads };
    let settleReady: [(version: string) => void, (error: Error) => void];
    let settleEnded: [() => void, (error: Error) => void];
    this.ready = new Promise((resolve, reject) => {
      settleReady = [resolve, reject];
    });
    this.ended = new Promise((resolve, reject) => {
      settleEnded = [resolve, reject];
    });
    this.#settle = {
      ready: settleReady![0],
      notReady: settleReady![1],
      ended: settleEnded![0],
      broken: settleEnded![1],
    };
    // Whoever does not look at these must not be ended by them.
    this.ready.catch(() => {});
    this.ended.catch(() => {});
    this.#worker = new Worker(workerUrl(import.meta.url, "./conversation-worker.js"), {
      workerData: data,
      name: "fuse",
    });
    this.#worker.on("message", (message: 0 | ConversationMessage) => this.#receive(message));
    this.#worker.on("error", (error) => this.#fail(error));
    this.#worker.on("exit", () => this.#fail(new Error("The FUSE worker thread ended early.")));
  }

  /** Takes over the descriptor of a /dev/fuse that has just been mounted. */
  start(fd: number): void {
    this.#fd = fd;
    const defect = (text: string) => this.#log("error", text);
    this.#reply = new ReplyWriter(fd, defect);
    const log = new AnswerLog(this.#log);
    this.#handler = new RequestHandler(this.#files, this.#reply, this.#consumer, log);
    this.#timer = setTimeout(() => {
      this.#settle.notReady(
        new Failure("ETIMEDOUT", "The kernel did not answer the new mount; is FUSE working here?"),
      );
    }, READY_WITHIN_MS);
    this.#consumer.start(fd);
  }

  /** Ends a conversation that was never started. */
  cancel(): void {
    this.#over = true;
    this.#consumer.start(undefined);
  }

  #receive(message: 0 | ConversationMessage): void {
    if (message === 0) {
      this.#consumer.drain((words, slot) => this.#handler?.handle(words, slot));
      return;
    }
    switch (message.kind) {
      case "ready":
        clearTimeout(this.#timer);
        this.#settle.ready(message.version);
        return;
      case "refused":
        this.#fail(
          new Failure(
            "ENOSYS",
            `This kernel speaks FUSE ${message.version}; 7.28 (Linux 4.20) or newer is needed.`,
          ),
        );
        return;
      case "log":
        this.#log("error", message.text);
        return;
      case "failed":
        this.#fail(new Error(message.text));
        return;
      case "ended":
        this.#finish();
        return;
    }
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#settle.notReady(new Failure("ENOTCONN", "The mount was taken away at once."));
    const settled = this.#handler?.settled() ?? Promise.resolve();
    void settled.then(() => {
      this.#close();
      this.#settle.ended();
    });
  }

  #fail(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    // Closing the last descriptor aborts the connection: whoever waits gets ENOTCONN, not silence.
    this.#close();
    this.#settle.notReady(error);
    this.#settle.broken(error);
  }

  #close(): void {
    this.#reply?.close();
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
