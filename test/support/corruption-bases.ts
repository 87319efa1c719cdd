/** Makes the undamaged images of the corruptions with the real tools, each once. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { CorruptionBase } from './corruptions.js';
import { runOk } from './tools.js';

/** Name of every such image, and of its external data file if it has one. */
export const imageName = 'image.qcow2';
export const externalName = 'external.data';

/** The undamaged images of a test, made when they are first asked for. */
export class CorruptionBases {
  readonly #made = new Map<string, Promise<string>>();

  /** @param folder where they are made */
  constructor(private readonly folder: string) {}

  /** The folder of an image. */
  folderOf(base: CorruptionBase): Promise<string> {
    const known = this.#made.get(base.name);
    if (known !== undefined) return known;
    const made = this.#make(base);
    this.#made.set(base.name, made);
    return made;
  }

  async #make({ name, steps }: CorruptionBase): Promise<string> {
    const folder = path.join(this.folder, name);
    await mkdir(folder);
    for (const step of steps) {
      if (typeof step === 'string')
        await runOk('qemu-io', ['-c', step, imageName], { cwd: folder });
      else {
        const words = step.map((word) => (word === 'IMAGE' ? imageName : word));
        await runOk('qemu-img', words, { cwd: folder });
      }
    }
    return folder;
  }
}
