"""Writes a C program that prints the binary interface of dasan.h: the value of every constant, and
the size of every struct with the offset and size of each field. make_layout.py HEADER > layout.c

The program fails if the fields it found do not fill their struct, so a declaration that this reader
does not understand is noticed rather than left out.
"""
import re
import sys


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        source = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    print("#include <dasan/dasan.h>\n#include <stdio.h>\nint main(void) {\n  int bad = 0; size_t sum;")
    for body in re.findall(r"\benum\s*\{(.*?)\}", source, flags=re.S):
        for name in re.findall(r"\b(DASAN_\w+)\s*=", body):
            print(f'  printf("{name} %lld\\n", (long long){name});')
    for body, name in re.findall(r"typedef struct \w+\s*\{(.*?)\}\s*(\w+);", source, flags=re.S):
        print(f'  sum = 0; printf("{name} %zu\\n", sizeof({name}));')
        for declaration in filter(None, (part.strip() for part in body.split(";"))):
            for field in fields(declaration):
                print(f'  printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}),'
                      f" sizeof((({name} *)0)->{field})); sum += sizeof((({name} *)0)->{field});")
        print(f'  if (sum != sizeof({name})) bad = fprintf(stderr, "{name}: fields hold %zu bytes of %zu\\n",'
              f" sum, sizeof({name})) > 0;")
    print("  return bad;\n}")


def fields(declaration: str) -> list[str]:
    pointer = re.search(r"\(\*(\w+)\)\s*\(", declaration)
    if pointer:
        return [pointer.group(1)]
    return [re.search(r"(\w+)\s*(\[\w+\])?$", part.strip()).group(1) for part in declaration.split(",")]


main()
