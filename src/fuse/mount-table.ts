/**
 * What is mounted where, from /proc/self/mountinfo: the one way to know it that never touches a
 * mount point, for a process that touches its own waits for itself. Source: proc_pid_mountinfo(5).
 */
import { readFile } from "node:fs/promises";

export interface MountEntry {
  /** Unique among live mounts. */
  readonly id: number;
  /** MAJOR:MINOR of the file system, as under /sys/class/bdi. */
  readonly device: string;
  readonly mountPoint: string;
  /** e.g. `ext4`, `fuse.ebsmount`. */
  readonly type: string;
  readonly source: string;
  /** Nothing can be written, by the mount's options or the file system's. */
  readonly readOnly: boolean;
}

const TABLE = "/proc/self/mountinfo";

/** Parses the whole table, in the order of mounting. */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    const [left, right] = line.split(" - ", 2);
    const fields = left?.split(" ") ?? [];
    const [type, source, options = ""] = right?.split(" ") ?? [];
    if (fields.length < 6 || type === undefined || source === undefined) continue;
    entries.push({
      id: Number(fields[0]),
      device: fields[2]!,
      mountPoint: decodePath(fields[4]!),
      type,
      source: decodePath(source),
      readOnly: [...fields[5]!.split(","), ...options.split(",")].includes("ro"),
    });
  }
  return entries;
}

/** Space, tab, newline and backslash are written as three octal digits. */
function decodePath(text: string): string {
  if (!text.includes("\\")) return text;
  const bytes = Buffer.from(text);
  const plain: number[] = [];
  for (let i = 0; i < bytes.length; i += 1) {
    if (bytes[i] === 0x5c) {
      plain.push(Number.parseInt(bytes.toString("latin1", i + 1, i + 4), 8));
      i += 3;
    } else {
      plain.push(bytes[i]!);
    }
  }
  return Buffer.from(plain).toString();
}

/** The uppermost mount at a path (absolute, without symbolic links); undefined where there is none. */
export async function findMount(mountPoint: string): Promise<MountEntry | undefined> {
  const entries = parseMountTable(await readFile(TABLE, "utf8"));
  return entries.findLast((entry) => entry.mountPoint === mountPoint);
}

/** Whether a mount found before is still there. */
export async function isMounted(mount: MountEntry): Promise<boolean> {
  const entries = parseMountTable(await readFile(TABLE, "utf8"));
  return entries.some((entry) => entry.id === mount.id && entry.device === mount.device);
}
