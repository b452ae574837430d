/**
 * The log: pino, one JSON object a line, to standard error or a file. pino is loaded only when a log
 * is made, so that commands that log nothing start without it. Whatever is logged as an object loses
 * the fields that could hold a secret or a disk's contents; messages must not be built from them.
 */
import { createRequire } from "node:module";
import type { Logger } from "pino";

export type { Logger };

/** Names of fields that never reach a log, at the top of what is logged and one level below. */
const SECRET_FIELDS = [
  "accessKeyId",
  "secretAccessKey",
  "sessionToken",
  "credentials",
  "authorization",
  "Authorization",
  "token",
  "blockToken",
  "blockTokens",
  "BlockToken",
  "pageToken",
  "nextToken",
  "NextToken",
  "clientToken",
  "data",
  "body",
  "Body",
  "BlockData",
  "headers",
];

/**
 * @param level silent, error, warn, info or debug.
 * @param file path to append to; standard error without it. Written as it is logged, so that a
 * process that dies has its last words there.
 */
export function openLog(level: string, file?: string): Logger {
  const { pino } = createRequire(import.meta.url)("pino") as typeof import("pino");
  const paths = SECRET_FIELDS.flatMap((field) => [field, `*.${field}`]);
  const destination = pino.destination({ dest: file ?? 2, sync: true, mode: 0o600 });
  return pino({ level, base: { pid: process.pid }, redact: { paths, remove: true } }, destination);
}
