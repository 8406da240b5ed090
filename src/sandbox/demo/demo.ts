/** Placeholder until written. */
export async function runDemo(_o: { isReal: boolean; isKept: boolean }): Promise<number> {
  return 1;
}
