/** A journal in a file, for Node: synced at every line, so that what was queued outlives the process. */

import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";

import type { Store } from "./store.js";

/** A file of lines. A last line that was cut short by a crash was never acknowledged, and is left out. */
export class FileStore implements Store {
  constructor(private readonly path: string) {}

  async load(): Promise<string[]> {
    let text: string;
    try {
      text = await readFile(this.path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
    const lines = text.split("\n");
    const torn = lines.pop();
    if (torn !== "") await this.rewrite(lines); // the next line must not go on where this one broke off
    return lines;
  }

  async append(line: string): Promise<void> {
    await this.written(this.path, "a", `${line}\n`);
  }

  async rewrite(lines: string[]): Promise<void> {
    const scratch = `${this.path}.new`;
    await this.written(scratch, "w", lines.map((line) => `${line}\n`).join(""));
    await rename(scratch, this.path);
    const folder = await open(dirname(this.path), "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  /** Write a text and sync it; of one that could not be written whole, nothing stays. */
  private async written(path: string, flags: string, text: string): Promise<void> {
    const file = await open(path, flags, 0o600);
    try {
      const { size } = await file.stat();
      try {
        await file.writeFile(text);
        await file.sync();
      } catch (error) {
        await file.truncate(size);
        throw error;
      }
    } finally {
      await file.close();
    }
  }
}
