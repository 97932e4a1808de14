# Installs the library, its headers, the command, a CMake package and a pkg-config file.
#
# The package describes the installed library by hand instead of through install(EXPORT): the
# library is made of private object libraries, which an export of a static build would have to name.
include(CMakePackageConfigHelpers)

install(TARGETS dasan
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(TARGET dasan-cli)
  install(TARGETS dasan-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/engine/include/dasan"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(FILES "${CMAKE_CURRENT_SOURCE_DIR}/LICENSE" DESTINATION ${CMAKE_INSTALL_DOCDIR})

# What a program that links the static library has to link too: names, not paths, because the
# machine that builds the library need not be the one that links the program.
if(DASAN_SHARED)
  set(dasan_needs "")
  set(dasan_defines "")
else()
  set(dasan_needs simdjson pcre2-8 utf8proc)
  set(dasan_runtime ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
  list(FILTER dasan_runtime INCLUDE REGEX "^(stdc\\+\\+|c\\+\\+|c\\+\\+abi|m)$")
  list(REMOVE_DUPLICATES dasan_runtime)
  set(dasan_defines "DASAN_STATIC")
endif()

set(dasan_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/dasan")
set(dasan_library_file "$<TARGET_FILE_NAME:dasan>")
configure_package_config_file(cmake/dasan-config.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/dasan-config.cmake.stage"
  INSTALL_DESTINATION "${dasan_package_dir}"
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
# A second pass, for the file name of the library, which is known only at generation.
file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/dasan-config.cmake"
  INPUT "${CMAKE_CURRENT_BINARY_DIR}/dasan-config.cmake.stage")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/dasan-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/dasan-config.cmake"
  "${CMAKE_CURRENT_BINARY_DIR}/dasan-config-version.cmake" DESTINATION "${dasan_package_dir}")

# pkg-config finds the prefix from the file's own place, so that the installed tree can be moved.
file(RELATIVE_PATH dasan_pc_up "/p/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/p")
string(REGEX REPLACE "/$" "" dasan_pc_up "${dasan_pc_up}")
set(dasan_pc_libs "-ldasan")
foreach(name IN LISTS dasan_needs dasan_runtime)
  string(APPEND dasan_pc_libs " -l${name}")
endforeach()
set(dasan_pc_cflags "")
if(NOT DASAN_SHARED)
  string(APPEND dasan_pc_libs " -pthread")
  set(dasan_pc_cflags " -D${dasan_defines}")
endif()
configure_file(cmake/dasan.pc.in "${CMAKE_CURRENT_BINARY_DIR}/dasan.pc" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/dasan.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
