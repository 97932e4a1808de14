# Third-party libraries, all from the distribution and all private: none appears in dasan.h or in
# the exported package. Static archives are preferred where the distribution ships them as
# position-independent code, so that libdasan is self-contained.
find_package(Threads REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(fmt REQUIRED)
find_package(simdjson REQUIRED)

function(dasan_find_static target header archive fallback)
  find_path(${target}_INCLUDE ${header} REQUIRED)
  find_library(${target}_LIBRARY NAMES ${archive} ${fallback} REQUIRED)
  mark_as_advanced(${target}_INCLUDE ${target}_LIBRARY)
  add_library(dasan_${target} INTERFACE)
  target_include_directories(dasan_${target} SYSTEM INTERFACE "${${target}_INCLUDE}")
  target_link_libraries(dasan_${target} INTERFACE "${${target}_LIBRARY}")
endfunction()
dasan_find_static(pcre2 pcre2.h libpcre2-8.a pcre2-8)
dasan_find_static(utf8proc utf8proc.h libutf8proc.a utf8proc)
