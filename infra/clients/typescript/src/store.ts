/** Where a queue keeps its journal, so that outcomes outlive the process or the page. */

/** A list of lines that only grows, and is now and then written anew. One client at a time has it. */
export interface Store {
  /** Return all lines, in the order in which they were added. */
  load(): Promise<string[]>;
  /** Add a line; it is kept once this has resolved. */
  append(line: string): Promise<void>;
  /** Put these lines in the place of all others, whole or not at all. */
  rewrite(lines: string[]): Promise<void>;
}

/** What a store needs of `localStorage`, `sessionStorage` or something like them. */
export interface WebStorage {
  readonly length: number;
  key(index: number): string | null;
  getItem(name: string): string | null;
  setItem(name: string, value: string): void;
  removeItem(name: string): void;
}

/** A journal in a browser's storage, a key for each line; a line that finds no room there raises. */
export class WebStore implements Store {
  private next = 0;

  /**
   * @param storage for example `localStorage`.
   * @param name what its keys begin with; each client that is open at once needs its own.
   */
  constructor(
    private readonly storage: WebStorage,
    private readonly name = "decision-client",
  ) {}

  async load(): Promise<string[]> {
    const numbers = this.numbers();
    this.next = (numbers.at(-1) ?? -1) + 1;
    return numbers.map((number) => this.storage.getItem(this.key(number)) ?? "");
  }

  async append(line: string): Promise<void> {
    this.storage.setItem(this.key(this.next), line);
    this.next += 1;
  }

  async rewrite(lines: string[]): Promise<void> {
    // The new lines are there before the old ones go: a journal that has a line twice says the same.
    const old = this.numbers();
    for (const line of lines) await this.append(line);
    for (const number of old) this.storage.removeItem(this.key(number));
  }

  private key(number: number): string {
    return `${this.name}.${number}`;
  }

  private numbers(): number[] {
    const found: number[] = [];
    for (let at = 0; at < this.storage.length; at++) {
      const key = this.storage.key(at) ?? "";
      const number = key.startsWith(`${this.name}.`) ? Number(key.slice(this.name.length + 1)) : NaN;
      if (Number.isSafeInteger(number)) found.push(number);
    }
    return found.sort((a, b) => a - b);
  }
}
