/** Files whose names are not UTF-8: found, made, named and printed as the real qemu-img does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { needsTool, cowherdForShells, run, runOk, temporaryFolder } from '../support/tools.js';

/** Each with a name that is not UTF-8 in `$n`; what is printed is compared byte by byte. */
const lines: readonly string[] = [
  'IMG info "$n"',
  'IMG info --output=json "$n" | grep -v date',
  'IMG info "miss$n"',
  'IMG map "$n"',
  'IMG check "$n"',
  'IMG compare "$n" "$n"',
  'IMG info top.q',
  'IMG info --backing-chain top.q',
  'IMG map --output=json top.q',
  'IMG convert -O raw top.q o.raw && cksum < o.raw',
  'mkdir out; IMG create -f qcow2 "out/$n" 1M; ls out; rm -r out',
  'mkdir out; IMG create -q -f qcow2 -b "$PWD/$n" -F qcow2 "out/$n" && IMG info "out/$n"; rm -r out',
  'mkdir out; IMG convert -O qcow2 "$n" "out/$n"; ls out; IMG info "out/$n"; rm -r out',
  'IMG convert -O qcow2 -o "data_file=d$n" "$n" "e$n"; ls *d*; IMG info "e$n"; rm ./*d*; rm "e$n"',
  'IMG convert -O qcow2 "miss$n" x',
  'IMG info --image-opts "driver=qcow2,file.filename=$n"',
];

test('names that are not UTF-8 are what they are to qemu-img', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io', 'base64')) return;
  const cwd = await temporaryFolder(t);
  const name = `n=$(printf 'caf\\351 \\303\\251\\377.q');`;
  const make = `qemu-img create -q -f qcow2 "$n" 1M; qemu-io -c 'write -P 7 64k 64k' "$n" >/dev/null
    qemu-img create -q -f qcow2 -b "$n" -F qcow2 top.q`;
  await runOk('sh', ['-c', name + make], { cwd });
  const shown = async (line: string, program: string, label: string): Promise<string> => {
    const script = `${name} (${line.replaceAll('IMG', program)}) 2>&1 | sed 's/^${label}: //' | base64 -w0`;
    const bytes = Buffer.from(await runOk('sh', ['-c', script], { cwd }), 'base64');
    return bytes.toString('latin1').replace(/disk size: .*|"actual-size": .*/g, '');
  };
  for (const line of lines) {
    const theirs = await shown(line, 'qemu-img', 'qemu-img');
    const ours = await shown(line, cowherdForShells, 'cowherd');
    assert.equal(ours, theirs, line);
  }
});

test('the library takes the bytes of a name, and gives a string that names the same file', async (t) => {
  const cwd = await temporaryFolder(t);
  const bytes = Buffer.concat([Buffer.from(`${cwd}/`), Buffer.from([0xe9, 0x41, 0xff])]);
  await createImage(bytes, { format: 'qcow2', size: 65536 });
  const image = await openImage(bytes);
  await image.write(new Uint8Array(512).fill(3), 0);
  const { filename } = image;
  await image.close();
  const again = await openImage(filename, { readOnly: true });
  const back = new Uint8Array(512);
  await again.read(back, 0);
  assert.deepEqual(back, new Uint8Array(512).fill(3));
  await again.close();
  const { stdout } = await run('sh', ['-c', 'ls | od -An -tx1'], { cwd });
  assert.equal(stdout.replace(/\s/g, ''), 'e941ff0a');
});
