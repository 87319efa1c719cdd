/**
 * Who asks an S3 service, and where it is: from the environment, or else from the files that AWS's own tools
 * keep (AWS CLI, "Configuration and credential file settings").
 */
import { readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

/** See the file's comment. */
export interface S3Access {
  /** Undefined for buckets that anybody may read. */
  readonly credentials:
    | {
        readonly accessKeyId: string;
        readonly secretAccessKey: string;
        readonly sessionToken?: string | undefined;
      }
    | undefined;
  readonly region: string;
  /** URL of a service that is not AWS's. */
  readonly endpoint: string | undefined;
}

/** Finds them. */
export async function findAccess(): Promise<S3Access> {
  const profile = process.env['AWS_PROFILE'] ?? 'default';
  const folder = path.join(os.homedir(), '.aws');
  const credentialsFile =
    process.env['AWS_SHARED_CREDENTIALS_FILE'] ?? path.join(folder, 'credentials');
  const configFile = process.env['AWS_CONFIG_FILE'] ?? path.join(folder, 'config');
  const stored = {
    ...(await section(configFile, [profile, `profile ${profile}`])),
    ...(await section(credentialsFile, [profile])),
  };
  // What is empty is taken as not there, as AWS's tools do.
  const value = (variable: string, key: string): string | undefined =>
    [process.env[variable], stored[key]].find((each) => each !== undefined && each !== '');
  const accessKeyId = value('AWS_ACCESS_KEY_ID', 'aws_access_key_id');
  const secretAccessKey = value('AWS_SECRET_ACCESS_KEY', 'aws_secret_access_key');
  return {
    credentials:
      accessKeyId === undefined || secretAccessKey === undefined
        ? undefined
        : {
            accessKeyId,
            secretAccessKey,
            sessionToken: value('AWS_SESSION_TOKEN', 'aws_session_token'),
          },
    region: value('AWS_REGION', 'region') ?? process.env['AWS_DEFAULT_REGION'] ?? 'us-east-1',
    endpoint: process.env['AWS_ENDPOINT_URL_S3'] ?? value('AWS_ENDPOINT_URL', 'endpoint_url'),
  };
}

/** The values of the first section of those names in an INI file; none if there is no such file. */
async function section(
  file: string,
  names: readonly string[],
): Promise<Record<string, string | undefined>> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const values: Record<string, string | undefined> = {};
  let isMeant = false;
  for (const line of text.split(/\r?\n/)) {
    const header = /^\s*\[\s*(.+?)\s*\]/.exec(line);
    if (header !== null) isMeant = names.includes(header[1]);
    const entry = /^\s*([a-z_0-9]+)\s*=\s*(.*?)\s*$/i.exec(line);
    if (isMeant && entry !== null) values[entry[1]] = entry[2];
  }
  return values;
}
