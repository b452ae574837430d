/**
 * An AWS configuration of a test's own: a home folder, and an environment that holds nothing of this machine's
 * as long as the test runs.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export class AwsHome {
  readonly path = mkdtempSync(join(tmpdir(), "aws-home-"));
  readonly #own = { ...process.env };

  /** Replaces the environment until `remove`. */
  constructor(env: Readonly<Record<string, string>> = {}) {
    this.setEnvironment(env);
  }

  setEnvironment(env: Readonly<Record<string, string>>): void {
    replace({ ...quiet(this.#own), HOME: this.path, AWS_EC2_METADATA_DISABLED: "true", ...env });
  }

  /** @returns its path. */
  write(name: string, text: string | Uint8Array, mode = 0o600): string {
    const path = join(this.path, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text, { mode });
    return path;
  }

  read(name: string): string {
    return readFileSync(join(this.path, name), "utf8");
  }

  config(text: string): string {
    return this.write(".aws/config", text);
  }

  credentials(text: string): string {
    return this.write(".aws/credentials", text);
  }

  remove(): void {
    replace(this.#own);
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** What is no part of an AWS configuration. */
function quiet({ PATH = "", EBSMOUNT_HTTP_TRANSPORT }: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return {
    PATH,
    AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true",
    ...(EBSMOUNT_HTTP_TRANSPORT !== undefined && { EBSMOUNT_HTTP_TRANSPORT }),
  };
}

function replace(env: NodeJS.ProcessEnv): void {
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, env);
}
