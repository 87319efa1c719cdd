/** A web server on this machine that others wrote: nginx, where it is installed. */
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { type ChildProcess, spawn } from 'node:child_process';

/** Serves the files of a folder. */
export interface WebServer {
  /** Its address, without a slash at the end. */
  readonly address: string;
  stop(): void;
}

/** @returns undefined, with a line about it, where there is no nginx */
export async function serveFolder(folder: string): Promise<WebServer | undefined> {
  const port = await freePort();
  const prefix = path.join(folder, 'nginx');
  await mkdir(prefix, { recursive: true });
  const settings = path.join(prefix, 'nginx.conf');
  await writeFile(
    settings,
    `user root; daemon off; worker_processes 1; pid ${prefix}/pid; error_log ${prefix}/errors;
     events {}
     http {
       access_log off; sendfile on; keepalive_requests 1000000;
       ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((each) => `${each}_temp_path ${prefix}/${each};`).join(' ')}
       server { listen 127.0.0.1:${port}; root ${folder}; }
     }\n`,
  );
  const child = spawn('nginx', ['-p', prefix, '-c', settings], { stdio: 'inherit' });
  const address = `http://127.0.0.1:${port}`;
  if (!(await answers(child, address))) {
    console.error('no nginx: nothing is read from a web server');
    return undefined;
  }
  // It ends with this program, which does not wait for it.
  child.unref();
  process.once('exit', () => child.kill());
  return { address, stop: () => child.kill() };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function answers(child: ChildProcess, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    child
      .once('error', () => {
        resolve(false);
      })
      .once('exit', () => {
        resolve(false);
      });
    void untilAnswered(address).then(resolve);
  });
}

async function untilAnswered(address: string): Promise<boolean> {
  for (let attempt = 0; attempt < 100; attempt++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const response = await fetch(address).catch(() => undefined);
    if (response !== undefined) return true;
  }
  return false;
}
