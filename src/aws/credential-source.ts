/**
 * Finds credentials in the AWS CLI's order, and keeps those that expire until shortly before they do:
 *
 * 1. keys in the environment, unless --profile is given (AWS_PROFILE does not go before them);
 * 2. the profile, and before its own web identity, SSO, keys or program the environment's web identity;
 * 3. the container's; 4. the instance's.
 *
 * The configuration is read each time credentials are fetched. Source: botocore, credentials.py
 * create_credential_resolver; compared with the AWS CLI in test/e2e/place.test.ts.
 */
import type { HttpTransport } from "../http/transport.js";
import type { Clock } from "./clock.js";
import { quoted, readConfigFiles, requireProfile, variable } from "./config-files.js";
import { containerCredentials, hasContainer } from "./container-credentials.js";
import {
  type AwsCredentials,
  CredentialsError,
  CredentialsMistake,
  NoCredentials,
} from "./credentials.js";
import { environmentKeys } from "./environment-keys.js";
import {
  instanceCredentials,
  type ProfileContext,
  profileCredentials,
  webIdentityCredentials,
} from "./profile-credentials.js";
import type { SdkChain, SdkRequestHandler } from "./sdk-credentials.js";
import { type AwsSettings, configuredEndpoint } from "./settings.js";
import { readTokenFile } from "./token-file.js";

/** Credentials that end in less than this are fetched again, ms; as the SDK does. */
const RENEW_BEFORE_MS = 300_000;
/** Until they end in less than this, the old ones serve while new ones are fetched, ms. */
const LAST_USE_MS = 60_000;
/** A source that gives credentials as good as expired is not asked more often than this, ms. */
const MIN_FETCH_INTERVAL_MS = 30_000;

export interface SourceOptions {
  readonly settings: AwsSettings;
  readonly transport: HttpTransport;
  readonly handler: SdkRequestHandler;
  /** As in HttpRequest, ms. */
  readonly stallMs: number;
  /** Corrected by what servers say, and used to read when credentials end. */
  readonly clock: Clock;
  readonly chain: SdkChain;
}

export class CredentialSource {
  readonly #options: SourceOptions;
  #kept: AwsCredentials | undefined;
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #fetching: Promise<AwsCredentials> | undefined;
  #hadInstance = false;

  /** Reads and asks nothing. */
  constructor(options: SourceOptions) {
    this.#options = options;
  }

  /**
   * @returns credentials whose expiration is by this machine's clock, however wrong that is.
   * @throws CredentialsMistake, CredentialsError, Failure
   */
  async get(): Promise<AwsCredentials> {
    const kept = this.#kept;
    if (kept === undefined) return this.#local(await this.#fetch());
    const left = this.#leftMs(kept);
    const isRecent = performance.now() - this.#fetchedAt < MIN_FETCH_INTERVAL_MS;
    if (left >= RENEW_BEFORE_MS || isRecent) return this.#local(kept);
    const fetching = this.#fetch();
    if (left < LAST_USE_MS) return this.#local(await fetching);
    fetching.catch(() => {});
    return this.#local(kept);
  }

  /** Requests wait for credentials. */
  get isFetching(): boolean {
    return this.#fetching !== undefined;
  }

  /** The next ones are fetched. */
  forget(): void {
    this.#kept = undefined;
  }

  /** Many callers share one fetch. */
  #fetch(): Promise<AwsCredentials> {
    this.#fetching ??= this.#find()
      .then((found) => {
        this.#kept = found;
        this.#fetchedAt = performance.now();
        return found;
      })
      .finally(() => {
        this.#fetching = undefined;
      });
    return this.#fetching;
  }

  #leftMs({ expiration }: AwsCredentials): number {
    if (expiration === undefined) return Number.POSITIVE_INFINITY;
    return expiration.getTime() - (Date.now() + this.#options.clock.offsetMs);
  }

  #local(found: AwsCredentials): AwsCredentials {
    const { expiration } = found;
    if (expiration === undefined) return found;
    const { offsetMs } = this.#options.clock;
    return { ...found, expiration: new Date(expiration.getTime() - offsetMs) };
  }

  async #find(): Promise<AwsCredentials> {
    const { settings, transport, stallMs } = this.#options;
    const { env, profileName, profileFrom } = settings;
    const isExplicit = profileFrom === "--profile";
    const ofEnvironment = isExplicit ? undefined : environmentKeys(env);
    if (ofEnvironment !== undefined) return ofEnvironment;
    const context = this.#context();
    const { profiles } = context.files;
    const profile =
      profileFrom === undefined
        ? profiles.get(profileName)
        : requireProfile(context.files, profileName, profileFrom);
    const tokenFile = isExplicit ? undefined : variable(env, "AWS_WEB_IDENTITY_TOKEN_FILE");
    const values = profile?.values;
    const hasRole = values?.has("role_arn") && !values.has("web_identity_token_file");
    if (tokenFile !== undefined && !hasRole) {
      return await webIdentityCredentials(context, {
        token: readTokenFile(tokenFile, "AWS_WEB_IDENTITY_TOKEN_FILE"),
        roleArn: variable(env, "AWS_ROLE_ARN") ?? values?.get("role_arn"),
        sessionName: variable(env, "AWS_ROLE_SESSION_NAME") ?? values?.get("role_session_name"),
        owner: "AWS_WEB_IDENTITY_TOKEN_FILE",
      });
    }
    const found = profile && (await profileCredentials(context, profile));
    if (found !== undefined) return found;
    if (hasContainer(env)) return await containerCredentials(env, transport, stallMs);
    return await this.#instance(context);
  }

  #context(): ProfileContext {
    const { settings, transport, handler, stallMs, clock, chain } = this.#options;
    const { env, region, useFipsEndpoint, useDualstackEndpoint } = settings;
    return {
      env,
      files: readConfigFiles(env),
      sdk: { chain, handler, region, useFipsEndpoint, useDualstackEndpoint, clock },
      transport,
      stallMs,
      endpoint: (service) => configuredEndpoint(service, settings),
    };
  }

  async #instance({ sdk, env }: ProfileContext): Promise<AwsCredentials> {
    try {
      const found = await instanceCredentials(sdk, env);
      this.#hadInstance = true;
      return found;
    } catch (cause) {
      if (this.#hadInstance) {
        const sentence = "the credentials of this instance's role cannot be renewed";
        throw new CredentialsError(sentence, { cause, passes: true });
      }
      const { profileName, profileFrom } = this.#options.settings;
      const environment = profileFrom === "--profile" ? "" : "AWS_ACCESS_KEY_ID is not set, ";
      const instance =
        cause instanceof CredentialsMistake
          ? "the instance's metadata is not asked (AWS_EC2_METADATA_DISABLED)"
          : "there is no instance role here";
      const sentence = `No AWS credentials were found: ${environment}the profile ${quoted(profileName)} has none, and ${instance}; run aws configure or aws sso login, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose a --profile.`;
      throw new NoCredentials(sentence, { cause });
    }
  }
}
