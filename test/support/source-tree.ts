/** Reads the project's own sources for the tests of the tree. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { projectFolder } from './tools.js';

/** A file of the project, by its path relative to the project with forward slashes. */
export interface SourceText {
  readonly name: string;
  readonly text: string;
}

const skipped = new Set(['node_modules', 'dist', 'build', 'prebuilt', '.git']);

/** Every file below the folders whose name has one of the endings, in a stable order. */
export function filesBelow(
  folders: readonly string[],
  endings: readonly string[],
): readonly SourceText[] {
  return folders.flatMap((folder) => [...walk(folder, endings)]);
}

function* walk(folder: string, endings: readonly string[]): Generator<SourceText> {
  let entries;
  try {
    entries = readdirSync(path.join(projectFolder, folder), { withFileTypes: true });
  } catch {
    return;
  }
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const name = path.posix.join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!skipped.has(entry.name)) yield* walk(name, endings);
    } else if (endings.some((ending) => entry.name.endsWith(ending))) {
      yield { name, text: readFileSync(path.join(projectFolder, name), 'utf8') };
    }
  }
}

/** The syntax tree of a TypeScript source. */
export function parse(source: SourceText): ts.SourceFile {
  return ts.createSourceFile(source.name, source.text, ts.ScriptTarget.Latest, true);
}

/** Visits every node of a tree, parents first. */
export function visit(node: ts.Node, visitor: (node: ts.Node) => void): void {
  visitor(node);
  ts.forEachChild(node, (child) => {
    visit(child, visitor);
  });
}

/** Whether a statement declares what it exports. */
export function isExported(statement: ts.Statement): boolean {
  return (
    ts.canHaveModifiers(statement) &&
    (ts.getModifiers(statement) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
  );
}

/** What a source imports or exports from, as it names it. */
export function importSpecifiers(source: SourceText): readonly string[] {
  const specifiers: string[] = [];
  visit(parse(source), (node) => {
    if (
      (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) &&
      node.moduleSpecifier !== undefined &&
      ts.isStringLiteral(node.moduleSpecifier)
    ) {
      specifiers.push(node.moduleSpecifier.text);
    } else if (
      ts.isCallExpression(node) &&
      node.expression.kind === ts.SyntaxKind.ImportKeyword &&
      ts.isStringLiteral(node.arguments[0])
    ) {
      specifiers.push(node.arguments[0].text);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      if (ts.isStringLiteral(node.argument.literal)) specifiers.push(node.argument.literal.text);
    }
  });
  return specifiers;
}

/** The project files that a source imports or exports from, `node:` and packages left out. */
export function projectImports(source: SourceText): readonly string[] {
  return importSpecifiers(source)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => path.posix.join(path.posix.dirname(source.name), specifier))
    .map((name) => name.replace(/\.js$/, '.ts'));
}
