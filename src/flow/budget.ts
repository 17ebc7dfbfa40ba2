/** A way of compiling would cost more than it may; another one is taken. */
export class BudgetExceeded extends Error {}

/** What an attempt at compiling may spend, so that it ends soon and small whatever the rules are. */
export class Budget {
  #steps: number;
  readonly #maxLength: number;

  /** @param steps elements of rule lists to look at; @param maxLength words that the program may have then */
  constructor(steps: number, maxLength: number) {
    this.#steps = steps;
    this.#maxLength = maxLength;
  }

  /** @throws {BudgetExceeded} */
  spend(steps: number, length: number): void {
    this.#steps -= steps;
    if (this.#steps < 0 || length > this.#maxLength) throw new BudgetExceeded();
  }
}
