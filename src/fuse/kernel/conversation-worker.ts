/**
 * The thread that reads /dev/fuse, one request at a time (request-reader.ts). What needs no knowledge
 * of the files is answered here (INIT, the operations there are not), reads whose bytes are in shared
 * memory too (DirectReads); all else goes to the main thread through shared-requests.ts. The loop makes
 * no object for a request and ends when the kernel says ENODEV: unmounted.
 */
import { parentPort, workerData } from "node:worker_threads";
import type { DirectReader } from "../../common/direct-reads.js";
import type { ConversationData, ConversationMessage } from "./conversation.js";
import { MAJOR, number64, OLDEST_MINOR, OPCODE, WORD } from "./protocol.js";
import { encodeInit, encodeOpenDirectory, uniqueOf } from "./replies.js";
import { ReplyWriter } from "./reply-writer.js";
import { openRequests } from "./request-reader.js";
import { MAX_FORWARDED_BYTES, RequestProducer } from "./shared-requests.js";
import { openVectorWrite } from "./vector-write.js";

const FORWARDED: ReadonlySet<number> = new Set([
  OPCODE.LOOKUP,
  OPCODE.GETATTR,
  OPCODE.SETATTR,
  OPCODE.OPEN,
  OPCODE.READ,
  OPCODE.WRITE,
  OPCODE.STATFS,
  OPCODE.RELEASE,
  OPCODE.FSYNC,
  OPCODE.FLUSH,
  OPCODE.READDIR,
  OPCODE.READDIRPLUS,
  OPCODE.INTERRUPT,
  OPCODE.FALLOCATE,
  OPCODE.LSEEK,
]);

/** Nothing can be made, renamed or removed here; on a read-only mount the kernel says EROFS itself. */
const REFUSED: ReadonlySet<number> = new Set([
  OPCODE.SYMLINK,
  OPCODE.MKNOD,
  OPCODE.MKDIR,
  OPCODE.UNLINK,
  OPCODE.RMDIR,
  OPCODE.RENAME,
  OPCODE.RENAME2,
  OPCODE.LINK,
  OPCODE.CREATE,
  OPCODE.TMPFILE,
]);

const port = parentPort!;
const { memory, direct } = workerData as ConversationData;

function tell(message: ConversationMessage): void {
  port.postMessage(message);
}

async function openDirectReader(): Promise<DirectReader | undefined> {
  if (direct === undefined) return undefined;
  const module = (await import(direct.module)) as {
    openDirectReader(data: unknown): DirectReader;
  };
  return module.openDirectReader(direct.data);
}

function serve(fd: number, producer: RequestProducer, reader: DirectReader | undefined): void {
  const log = (text: string) => tell({ kind: "log", text });
  const reply = new ReplyWriter(fd, log, openVectorWrite());
  const receive = openRequests(fd);
  let slot = producer.takeSlot();
  for (;;) {
    const length = receive(producer.bytes(slot));
    if (length === 0) return;
    const words = producer.words(slot);
    const opcode = words[WORD.OPCODE]!;
    if (opcode === OPCODE.READ && reader !== undefined) {
      const offset = number64(words, WORD.OFFSET);
      const parts = reader.tryRead(words[WORD.NODE]!, offset, words[WORD.SIZE]!);
      if (parts !== undefined) {
        reply.data(uniqueOf(words), parts);
        reader.done();
        continue;
      }
    }
    if (FORWARDED.has(opcode)) {
      const isWrite = opcode === OPCODE.WRITE;
      if (length > MAX_FORWARDED_BYTES && !isWrite) {
        reply.error(uniqueOf(words), "ENOENT");
        continue;
      }
      if (producer.push(slot, length, isWrite)) port.postMessage(0);
      if (isWrite) slot = producer.takeSlot();
    } else if (!answer(reply, words, opcode)) {
      return;
    }
  }
}

/** Requests that are answered at once; false ends the loop. */
function answer(reply: ReplyWriter, words: Uint32Array, opcode: number): boolean {
  const unique = uniqueOf(words);
  switch (opcode) {
    case OPCODE.INIT:
      return answerInit(reply, words, unique);
    case OPCODE.FORGET:
    case OPCODE.BATCH_FORGET:
      return true;
    case OPCODE.OPENDIR:
      reply.body(unique, encodeOpenDirectory(reply.words));
      return true;
    case OPCODE.RELEASEDIR:
    case OPCODE.FSYNCDIR:
    case OPCODE.DESTROY:
      reply.ok(unique);
      return true;
    case OPCODE.READLINK:
      reply.error(unique, "EINVAL");
      return true;
    default:
      // ENOSYS for extended attributes and ACCESS lets the kernel stop asking.
      reply.error(unique, REFUSED.has(opcode) ? "EPERM" : "ENOSYS");
      return true;
  }
}

function answerInit(reply: ReplyWriter, words: Uint32Array, unique: number): boolean {
  const major = words[WORD.INIT_MAJOR]!;
  const minor = words[WORD.INIT_MINOR]!;
  if (major < MAJOR || (major === MAJOR && minor < OLDEST_MINOR)) {
    reply.error(unique, "EINVAL");
    tell({ kind: "refused", version: `${major}.${minor}` });
    return false;
  }
  reply.body(unique, encodeInit(reply.words, words));
  // A newer major gets ours as the answer and asks again with it.
  if (major === MAJOR) tell({ kind: "ready", version: `${major}.${minor}` });
  return true;
}

try {
  const reader = await openDirectReader();
  const producer = new RequestProducer(memory);
  const fd = producer.waitForStart();
  if (fd !== undefined) serve(fd, producer, reader);
  tell({ kind: "ended" });
} catch (error) {
  tell({ kind: "failed", text: (error as Error).stack ?? String(error) });
}
