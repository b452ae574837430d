/**
 * `-o` options as people write them for mount(8), sorted by who acts on them: some go to the kernel
 * as they are, some shape what the file system shows (uid=, gid=, umask=), some only mean something
 * in /etc/fstab and are accepted in silence. Anything else is refused by name, for a mistyped option
 * that is ignored can expose a disk. Sources: mount(8), mount.fuse3(8), kernel fs/fuse/inode.c.
 */
import { Failure } from "../common/failure.js";

export interface MountOptions {
  /** For mount(8) or fusermount3; ro and rw excluded. */
  readonly kernel: readonly string[];
  readonly allowOther: boolean;
  /** true for `ro`, false for `rw`, undefined where neither was given; the last one wins. */
  readonly readOnly: boolean | undefined;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  /** Permission bits to take away, 0 to 0o777. */
  readonly umask: number | undefined;
}

const FLAGS = new Set([
  "allow_other",
  "async",
  "atime",
  "default_permissions",
  "diratime",
  "dirsync",
  "exec",
  "noatime",
  "nodev",
  "nodiratime",
  "noexec",
  "norelatime",
  "nosuid",
  "relatime",
  "strictatime",
  "sync",
]);

const FSTAB_ONLY = /^(?:defaults|auto|noauto|nofail|_netdev|user|nouser|users|x-.*)$/;

/**
 * @param options each one option or several joined by commas.
 * @throws Failure EINVAL naming the option that is unknown or whose value is not valid.
 */
export function parseMountOptions(options: readonly string[]): MountOptions {
  const kernel: string[] = [];
  let readOnly: boolean | undefined;
  let uid: number | undefined;
  let gid: number | undefined;
  let umask: number | undefined;
  for (const option of options.flatMap((text) => text.split(",")).map((text) => text.trim())) {
    const equals = option.indexOf("=");
    const name = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? undefined : option.slice(equals + 1);
    if (option === "" || FSTAB_ONLY.test(option)) continue;
    if (option === "ro" || option === "rw") readOnly = option === "ro";
    else if (FLAGS.has(option)) kernel.push(option);
    else if (name === "uid") uid = parseNumber(option, value, 10, 0xffff_fffe);
    else if (name === "gid") gid = parseNumber(option, value, 10, 0xffff_fffe);
    else if (name === "umask") umask = parseNumber(option, value, 8, 0o777);
    else if (name === "max_read") {
      kernel.push(`max_read=${parseNumber(option, value, 10, 0x7fff_ffff)}`);
    } else {
      throw new Failure(
        "EINVAL",
        `Mount option "${option}" is not known; known are ro, rw, uid=, gid=, umask=, max_read= and ${[...FLAGS].join(", ")}.`,
      );
    }
  }
  return { kernel, allowOther: kernel.includes("allow_other"), readOnly, uid, gid, umask };
}

function parseNumber(
  option: string,
  value: string | undefined,
  radix: 8 | 10,
  max: number,
): number {
  const digits = radix === 8 ? /^[0-7]+$/ : /^\d+$/;
  const number = value !== undefined && digits.test(value) ? Number.parseInt(value, radix) : -1;
  if (number < 0 || number > max) {
    const kind = radix === 8 ? "an octal number" : "a number";
    throw new Failure(
      "EINVAL",
      `Mount option "${option}" needs ${kind} from 0 to ${max.toString(radix)}.`,
    );
  }
  return number;
}

/**
 * The kernel's part of a mount's options, complete: devices and setuid programs of a foreign disk
 * never act here, and the kernel checks modes itself (default_permissions), without which
 * allow_other would show everything to everybody.
 */
export function kernelOptions(parsed: MountOptions, fileSystemReadOnly: boolean): string[] {
  const readOnly = fileSystemReadOnly || parsed.readOnly === true;
  const own = [readOnly ? "ro" : "rw", "nosuid", "nodev", "default_permissions"];
  return [...new Set([...own, ...parsed.kernel])];
}
