/**
 * The user's AWS configuration: the files `config` and `credentials`, found, read and put together as the AWS
 * CLI does (botocore, session.py full_config). A profile's values in `credentials` win over those in `config`.
 * Files that are not there are empty ones. The files are read again each time they are asked for, so that a
 * key that was changed is noticed; they are small.
 */
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { Failure } from "../common/failure.js";
import { IniError, parseIni, type Section, shellWords, type Values } from "./ini.js";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Largest configuration file that is read, bytes; thousands of profiles fit. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

export interface Profile {
  readonly name: string;
  /** Of both files. */
  readonly values: Values;
  /** Of `credentials` alone. */
  readonly credentials: Values;
}

export interface ConfigFiles {
  readonly profiles: ReadonlyMap<string, Profile>;
  /** `[sso-session NAME]` and `[services NAME]`, by their names. */
  readonly ssoSessions: ReadonlyMap<string, Values>;
  readonly services: ReadonlyMap<string, Values>;
  /** The files' paths, for sentences. */
  readonly configPath: string;
  readonly credentialsPath: string;
}

/** A variable's value; one that is set to nothing is not set. */
export function variable(env: Environment, name: string): string | undefined {
  return env[name] || undefined;
}

/** @throws Failure EINVAL that names the file, where one cannot be read or is not understood. */
export function readConfigFiles(env: Environment): ConfigFiles {
  const configPath = pathOf(env, "AWS_CONFIG_FILE", "config");
  const credentialsPath = pathOf(env, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
  const configs = new Map<string, Values>();
  const ssoSessions = new Map<string, Values>();
  const services = new Map<string, Values>();
  for (const { name, values } of readSections(env, configPath, "AWS_CONFIG_FILE")) {
    if (name === "default") configs.set(name, values);
    const [kind, own, ...more] = shellWords(name) ?? [];
    if (own === undefined || more.length > 0) continue;
    if (kind === "profile") configs.set(own, values);
    else if (kind === "sso-session") ssoSessions.set(own, values);
    else if (kind === "services") services.set(own, values);
  }
  const profiles = new Map<string, Profile>();
  for (const [name, values] of configs) {
    profiles.set(name, { name, values, credentials: new Map() });
  }
  const sections = readSections(env, credentialsPath, "AWS_SHARED_CREDENTIALS_FILE");
  for (const { name, values: credentials } of sections) {
    const values = new Map([...(configs.get(name) ?? []), ...credentials]);
    profiles.set(name, { name, values, credentials });
  }
  return { profiles, ssoSessions, services, configPath, credentialsPath };
}

/** @throws Failure EINVAL where the profile is in neither file. @param from what names it. */
export function requireProfile(files: ConfigFiles, name: string, from: string): Profile {
  const profile = files.profiles.get(name);
  if (profile !== undefined) return profile;
  throw new Failure(
    "EINVAL",
    `The AWS profile ${quoted(name)}, which ${from} names, is neither in ${files.configPath} nor in ${files.credentialsPath}; check its spelling.`,
  );
}

/** A name or value for a sentence: in quotation marks, control characters escaped, not endless. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

function pathOf(env: Environment, name: string, file: string): string {
  const home = env.HOME || homedir();
  const named = variable(env, name);
  if (named === undefined) return join(home, ".aws", file);
  const expanded = named.replace(
    /\$(?:(\w+)|\{([^}]*)\})/g,
    (whole, plain?: string, braced?: string) => env[plain ?? braced ?? ""] ?? whole,
  );
  return expanded.replace(/^~(?=$|\/)/, home);
}

/** What is no file (a folder, /dev/null) holds nothing, as for the AWS CLI. */
function readSections(env: Environment, path: string, name: string): Section[] {
  const refuse = (why: string, cause: unknown): never => {
    throw new Failure("EINVAL", `The AWS configuration file ${path} ${why}.`, { cause });
  };
  try {
    const found = statSync(path);
    if (!found.isFile()) return [];
    if (found.size > MAX_FILE_BYTES) return refuse("is larger than 16 MiB", undefined);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const isAbsent = code === "ENOENT" || code === "ENOTDIR";
    // Someone else's home, as under sudo -u, is a home without the file.
    const isClosedHome = code === "EACCES" && variable(env, name) === undefined;
    if (cause instanceof Failure) throw cause;
    if (isAbsent || isClosedHome) return [];
    return refuse(`cannot be read (${code}); check its permissions and ${name}`, cause);
  }
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    return refuse(`cannot be read (${code}); check its permissions and ${name}`, cause);
  }
  try {
    return parseIni(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    if (cause instanceof IniError) {
      return refuse(`is not understood: line ${cause.line} ${cause.message}`, cause);
    }
    return refuse("is not text in UTF-8", cause);
  }
}
