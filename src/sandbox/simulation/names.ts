/** Task ids that the queue and the bridge take for slugids, and that people can tell apart in a trace. */

const REST = 'QACAAAAAAAAAAA';

export function taskIdOf(name: string): string {
  return `${name.padEnd(8, '_')}${REST}`;
}

export function shortName(taskId: string): string {
  return taskId.slice(0, 8).replace(/_+$/, '');
}
